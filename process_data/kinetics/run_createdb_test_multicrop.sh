#!/usr/bin/env bash
# The LMDBs for the tests with three crops, and with three crops and their mirror images.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

createdb create_video_lmdb_test_multicrop.py ../../data/lmdb/kinetics_lmdb_multicrop/test vallist.txt
createdb create_video_lmdb_test_flipcrop.py ../../data/lmdb/kinetics_lmdb_flipcrop/test vallist.txt
exit "$failed"
