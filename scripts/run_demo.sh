#!/usr/bin/env bash
# The whole program on a small generated data set: videos, lists, LMDBs, training with non-local blocks, evaluation,
# fully convolutional test, curves, report. Started again, it continues with what already exists. KEY VALUE words go to
# the training tool. DEMO_NAME is the folder of the run in data/checkpoints/ (default: run_demo).
bash "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" || exit
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

data=../data/demo
run=../data/checkpoints/${DEMO_NAME:-run_demo}

# make_lmdb SPLIT SCRIPT LIST. An LMDB gets its name only when it is complete.
make_lmdb() {
    [ -d "$data/lmdb/$1" ] || "$PYTHON" "../process_data/kinetics/$2" --dataset_dir "$data/lmdb/$1" --list_file "$3"
}

mkdir -p "$data/lmdb" "$run"
"$PYTHON" ../process_data/demo/make_motion_videos.py "$data/videos" --train 50 --val 10
for split in train val; do
    "$PYTHON" ../process_data/kinetics/gen_py_list.py "$data/videos/$split" "$data/${split}list.txt" \
        --classids "$data/videos/classids.json"
done
"$PYTHON" ../process_data/kinetics/shuffle_list_rep.py "$data/trainlist_shuffle_rep.txt" \
    --list_file "$data/trainlist.txt"
make_lmdb train create_video_lmdb.py "$data/trainlist_shuffle_rep.txt"
make_lmdb val create_video_lmdb.py "$data/vallist.txt"
make_lmdb test create_video_lmdb_test_multicrop.py "$data/vallist.txt"

# In a subshell, because train_net exits the shell that it runs in.
(train_net ../configs/demo.yaml CHECKPOINT.DIR "$run" DATADIR "$data/lmdb/" FILENAME_GT "$data/vallist.txt" "$@")
"$PYTHON" ../tools/plot_log.py "$run/log.txt" --output "$run/curves.png"
"$PYTHON" ../tools/report_test.py "$run/results_probs.pkl" --truth "$data/vallist.txt" \
    --classes "$data/videos/classids.json"
weights=$(ls -t "$run"/checkpoints/c2_model_iter*.pkl | head -n 1)
"$PYTHON" ../tools/visualize_attention.py --config_file ../configs/demo.yaml --output "$run/attention" \
    --block nonlocal_conv3_3 --video "$data/videos/val/moving/scene_0001.mp4" TEST.PARAMS_FILE "$weights"
"$PYTHON" ../tools/report_run.py "$run" --classes "$data/videos/classids.json"

cd ..
run=${run#../}
echo
echo "The demo is done. $(grep -o 'top-1 accuracy: .*' "$run/log.txt" | tail -n 1) on held-out videos;" \
    "chance is 25."
echo "  report       $run/report.html (for a browser)"
echo "  videos       data/demo/videos/{train,val}/<class>/"
echo "  log          $run/log.txt"
echo "  curves       $run/curves.png"
echo "  confusion    $run/confusion.png"
echo "  attention    $run/attention/"
echo "  checkpoints  $run/checkpoints/"
echo "  test scores  $run/results_probs.pkl"
