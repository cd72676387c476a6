"""The demo's videos: the classes differ in what changes, and in nothing that a single frame shows."""

import importlib.util
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

TRAIN, VAL = 30, 30


def decode(path):
    """All frames of a video, F x H x W x 3 uint8 BGR."""
    video = cv2.VideoCapture(str(path))
    frames = []
    while (grabbed := video.read())[0]:
        frames.append(grabbed[1])
    return np.stack(frames)


@pytest.fixture(scope="module")
def script(repo):
    path = repo / "process_data/demo/make_motion_videos.py"
    spec = importlib.util.spec_from_file_location("make_motion_videos", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def videos(script, tmp_path_factory):
    """{split: [(frames, class id)]} of a whole data set, as decoded from its files."""
    out = tmp_path_factory.mktemp("videos")
    script.make_dataset(out, 0, {"train": TRAIN, "val": VAL})
    ids = json.loads((out / "classids.json").read_text())
    return {
        split: [(decode(path), ids[path.parent.name]) for path in sorted((out / split).glob("*/*.mp4"))]
        for split in ("train", "val")
    }


def nearest_centroid_accuracy(feature, videos):
    """Share of val videos whose standardised feature vector is nearest to the train mean of their class."""
    x, y = ({split: np.array(values) for split, values in part.items()} for part in (
        {split: [feature(frames) for frames, _ in videos[split]] for split in videos},
        {split: [label for _, label in videos[split]] for split in videos},
    ))
    mean, std = x["train"].mean(0), x["train"].std(0) + 1e-9
    train, val = (x["train"] - mean) / std, (x["val"] - mean) / std
    centroids = np.stack([train[y["train"] == label].mean(0) for label in range(y["train"].max() + 1)])
    nearest = ((val[:, None] - centroids) ** 2).sum(-1).argmin(1)
    return (nearest == y["val"]).mean()


def any_frame(frames):
    """One frame, chosen by the video's own bytes."""
    return frames[int(frames[:, 0, 0].astype(np.int64).sum()) % len(frames)]


def single_frame_pixels(frames):
    return cv2.resize(any_frame(frames), (12, 12), interpolation=cv2.INTER_AREA).ravel().astype(float)


def single_frame_histogram(frames):
    frame = cv2.cvtColor(any_frame(frames), cv2.COLOR_BGR2HSV)
    counts = [np.histogram(frame[..., c], 16, (0, 256))[0] for c in range(3)]
    return np.concatenate(counts) / frame[..., 0].size


def single_frame_noise(frames):
    """What coding leaves in a frame: the energy of its finest details."""
    frame = cv2.cvtColor(any_frame(frames), cv2.COLOR_BGR2GRAY).astype(float)
    detail = np.abs(cv2.Laplacian(frame, cv2.CV_64F))
    return np.quantile(detail, (0.1, 0.3, 0.5, 0.7, 0.9))


def change(frames):
    """How much changes; how much of it is colour; whether all changes go one way. From six frames, four apart."""
    luma, *chroma = (np.diff(channel, axis=0) for channel in np.moveaxis(np.stack(
        [cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb) for frame in frames[:24:4]]).astype(np.float32), 3, 0))
    size = np.abs(luma).mean() + 0.02
    return [
        np.log(size),
        np.log(np.abs(chroma).mean() + 0.02) - np.log(size),
        np.abs(luma.mean((1, 2))).mean() / size,
    ]


def test_there_are_all_videos_in_several_sizes_and_lengths(videos, script):
    assert [len(videos[split]) for split in ("train", "val")] == [5 * TRAIN, 5 * VAL]
    assert {label for _, label in videos["val"]} == set(range(len(script.CLASSES)))
    assert len({frames.shape[1:3] for frames, _ in videos["train"]}) >= 4
    lengths = {len(frames) for frames, _ in videos["train"]}
    assert len(lengths) > 10 and min(lengths) >= script.LENGTHS[0] and max(lengths) <= script.LENGTHS[1]


# With 150 videos and 5 classes chance is 20 % with a standard error of 3.3 %.
@pytest.mark.parametrize("feature", [single_frame_pixels, single_frame_histogram, single_frame_noise])
def test_a_single_frame_does_not_tell_the_class(videos, feature):
    assert nearest_centroid_accuracy(feature, videos) < 0.32


def test_what_changes_tells_the_class(videos):
    assert nearest_centroid_accuracy(change, videos) > 0.85


def test_a_mirror_turns_no_class_into_another(videos):
    mirrored = videos | {"val": [(np.flip(frames, 2).copy(), label) for frames, label in videos["val"]]}
    assert nearest_centroid_accuracy(change, mirrored) > 0.85


def test_train_and_val_scenes_differ(script):
    scenes = [script.draw_scene(0, split, n) for split in ("train", "val") for n in range(20)]
    assert len({scene.phases[0]["x"] for scene in scenes}) == 40


def run(repo, *words, **kwargs):
    command = [sys.executable, repo / "process_data/demo/make_motion_videos.py", *words]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_the_command_repeats_and_keeps_what_is_there(repo, tmp_path):
    def make(out, *words):
        return run(repo, out, "--train", "2", "--val", "1", *words, cwd=tmp_path)

    def frames(out):
        folder = tmp_path / out
        return {str(path.relative_to(folder)): decode(path) for path in folder.rglob("*.mp4")}

    assert make("a").stdout == "a: 15 videos of 5 classes (15 new)\n"
    assert make("a").stdout == "a: 15 videos of 5 classes (0 new)\n"
    make("b")
    make("c", "--seed", "1")
    a, b, c = frames("a"), frames("b"), frames("c")
    assert a.keys() == b.keys() == c.keys() and len(a) == 15
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not any(np.array_equal(a[name], c[name]) for name in a)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_the_command_refuses_negative_numbers(repo, tmp_path):
    result = run(repo, tmp_path / "a", "--train", "-1")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
