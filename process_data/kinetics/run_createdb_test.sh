#!/usr/bin/env bash
# The LMDB for the test with one centre crop.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

createdb create_video_lmdb_test.py ../../data/lmdb/kinetics_lmdb_singlecrop/test vallist.txt
exit "$failed"
