#!/usr/bin/env bash
# I3D ResNet-50 with 5 non-local blocks, frozen batch norm, 32 frames with stride 4: 400k iterations on 8 GPUs,
# from the converted model of run_i3d_baseline_400k.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

train_net ../configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_affine_400k.yaml \
    TRAIN.PARAMS_FILE ../data/pretrained_model/run_i3d_baseline_400k/affine_model_400k.pkl \
    VIDEO_DECODER_THREADS 2 \
    NONLOCAL.CONV3_NONLOCAL True \
    NONLOCAL.CONV4_NONLOCAL True \
    MODEL.VIDEO_ARC_CHOICE 2 \
    TRAIN.DROPOUT_RATE 0.5 \
    "$@"
