#!/usr/bin/env bash
# Fully convolutional test of the model that run_i3d_nlnet_400k.sh trains: 10 clips x 6 crops per video (3 crops and
# their mirror images), 4 GPUs.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

test_net ../configs/DBG_kinetics_resnet_8gpu_c2d_nonlocal_400k.yaml \
    DATADIR ../data/lmdb/kinetics_lmdb_flipcrop/ \
    TEST.PARAMS_FILE ../data/checkpoints/run_i3d_nlnet_400k/checkpoints/c2_model_iter400000.pkl \
    VIDEO_DECODER_THREADS 5 \
    NONLOCAL.CONV3_NONLOCAL True \
    NONLOCAL.CONV4_NONLOCAL True \
    MODEL.VIDEO_ARC_CHOICE 2 \
    TRAIN.DROPOUT_RATE 0.5 \
    NUM_GPUS 4 \
    TRAIN.BATCH_SIZE 32 \
    TEST.BATCH_SIZE 32 \
    TEST.NUM_TEST_CLIPS 60 \
    TEST.TEST_FULLY_CONV_FLIP True \
    "$@"
