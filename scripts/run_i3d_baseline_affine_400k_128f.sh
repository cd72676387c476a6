#!/usr/bin/env bash
# I3D ResNet-50, frozen batch norm, 128 frames with stride 1: 400k iterations on 8 GPUs,
# from the converted model of run_i3d_baseline_400k_32f.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

train_net ../configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_affine_400k.yaml \
    TRAIN.PARAMS_FILE ../data/pretrained_model/run_i3d_baseline_400k_32f/affine_model_400k.pkl \
    VIDEO_DECODER_THREADS 2 \
    NONLOCAL.CONV3_NONLOCAL False \
    NONLOCAL.CONV4_NONLOCAL False \
    MODEL.VIDEO_ARC_CHOICE 2 \
    TRAIN.DROPOUT_RATE 0.5 \
    TRAIN.VIDEO_LENGTH 128 \
    TRAIN.SAMPLE_RATE 1 \
    TEST.VIDEO_LENGTH 128 \
    TEST.SAMPLE_RATE 1 \
    MODEL.MODEL_NAME resnet_video_org \
    "$@"
