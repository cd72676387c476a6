#!/usr/bin/env bash
# Fine-tuning on the videos of data/mine from data/pretrained_model/finetune.pkl; DATASET.md explains how to make both.
# Append MODEL.NUM_CLASSES, TRAIN.DATASET_SIZE and TEST.DATASET_SIZE.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

train_net ../configs/finetune.yaml \
    DATADIR ../data/mine/ \
    FILENAME_GT ../data/mine/val.txt \
    TRAIN.PARAMS_FILE ../data/pretrained_model/finetune.pkl \
    "$@"
