#!/usr/bin/env bash
# C2D ResNet-50 with 5 non-local blocks, 32 frames with stride 2: 400k iterations on 8 GPUs,
# from ImageNet weights.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

train_net ../configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml \
    TRAIN.PARAMS_FILE ../data/pretrained_model/r50_pretrain_c2_model_iter450450_clean.pkl \
    VIDEO_DECODER_THREADS 5 \
    NONLOCAL.CONV3_NONLOCAL True \
    NONLOCAL.CONV4_NONLOCAL True \
    MODEL.VIDEO_ARC_CHOICE 1 \
    TRAIN.DROPOUT_RATE 0.5 \
    TRAIN.VIDEO_LENGTH 32 \
    TRAIN.SAMPLE_RATE 2 \
    TEST.VIDEO_LENGTH 32 \
    TEST.SAMPLE_RATE 2 \
    MODEL.MODEL_NAME resnet_video_org \
    "$@"
