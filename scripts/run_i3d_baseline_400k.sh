#!/usr/bin/env bash
# I3D ResNet-50, 8 frames with stride 8: 400k iterations on 8 GPUs,
# from ImageNet weights.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

train_net ../configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml \
    TRAIN.PARAMS_FILE ../data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl \
    VIDEO_DECODER_THREADS 5 \
    NONLOCAL.CONV3_NONLOCAL False \
    NONLOCAL.CONV4_NONLOCAL False \
    MODEL.VIDEO_ARC_CHOICE 2 \
    TRAIN.DROPOUT_RATE 0.5 \
    "$@"
