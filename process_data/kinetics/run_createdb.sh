#!/usr/bin/env bash
# The LMDBs for training: train from the shuffled repetitions of shuffle_list_rep.py, val from the test videos.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

createdb create_video_lmdb.py ../../data/lmdb/kinetics_lmdb_multicrop/train trainlist_shuffle_rep.txt
createdb create_video_lmdb.py ../../data/lmdb/kinetics_lmdb_multicrop/val vallist.txt
exit "$failed"
