import gc
import logging
import os
import signal
import struct
import subprocess
import threading
import time
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import reference_data
import torch
from loader_threads import decoder_threads
from video_files import make_videos, moving_square, write_list, write_video

from data import loader as loader_module
from data import transforms
from data.sources import group_by_video, open_test_source, open_train_source
from data.test_loader import TestClips, TestLoader
from data.train_loader import TrainClips, TrainLoader
from utils.errors import UserError
from video.bad_videos import BadVideos
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

CLIPS = TrainClips(length=4, rate=3, crop=32, jitter_scales=(32, 48))
TEST_CLIPS = TestClips(length=4, rate=3, crop=32, scale=40, temporal_positions=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), 8)


@pytest.fixture(scope="module")
def source(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    write_list(folder / "train.txt", videos, range(8))
    return open_train_source(folder, "train", seed=3, shuffle=True)


def train_loader(source, workers=2, **options):
    defaults = {
        "clips": CLIPS,
        "batch_size": 4,
        "replicas": 2,
        "local_replicas": range(2),
        "seed": 3,
        "purpose": "train",
        "num_classes": 8,
        "bad_videos": BadVideos(100),
    }
    return TrainLoader(source, workers=workers, **{**defaults, **options})


def take(loader, batches):
    """List of batches, each a list of (clips, labels) arrays a replica."""
    with loader:
        return [[(clips.numpy(), labels.numpy()) for clips, labels in next(loader)] for _ in range(batches)]


def flat(batches):
    """Clips and labels one after another, in the order of the stream."""
    clips = np.concatenate([clips for batch in batches for clips, _ in batch])
    return clips, np.concatenate([labels for batch in batches for _, labels in batch])


def assert_same(some, others):
    for one, other in zip(flat(some), flat(others), strict=True):
        assert np.array_equal(one, other)


# ------------------------------------------------------------------------------------------------ training


def test_batches_of_replicas(source):
    batches = take(train_loader(source), 3)
    for batch in batches:
        assert len(batch) == 2
        for clips, labels in batch:
            assert clips.shape == (2, 4, 32, 32, 3) and clips.dtype == np.uint8
            assert labels.shape == (2,) and labels.dtype == np.int64
    assert flat(batches)[1].tolist() == [source.record(slot).label for slot in range(12)]


def test_clips_are_what_was_drawn(source):
    assert_drawn(source)


def assert_drawn(source):
    clips, _ = flat(take(train_loader(source), 2))
    for slot, clip in enumerate(clips):
        frames = every_frame(source.record(slot).path)
        draws = transforms.train_draws(
            np.random.default_rng([3, zlib.crc32(b"train"), slot]), (32, 48)
        )
        start = int(draws.start * max(len(frames) - 12 + 1, 1))
        indices = [(start + 3 * place) % len(frames) for place in range(4)]
        height, width = transforms.scaled_size(*frames[min(indices)].shape[:2], draws.scale)
        row, column = int(draws.row * (height - 31)), int(draws.column * (width - 31))
        for place, index in enumerate(indices):
            frame = cv2.resize(frames[index], (width, height))
            frame = frame[row : row + 32, column : column + 32]
            assert np.array_equal(clip[place], frame[:, ::-1] if draws.mirror else frame)


def every_frame(path):
    frames = []
    sample_frames(open_video(str(path)), range, lambda places, frame: frames.append(frame.copy()), VideoFactsCache())
    return frames


def test_the_number_of_workers_does_not_show(source):
    expected = take(train_loader(source, workers=1), 6)
    assert_same(take(train_loader(source, workers=4), 6), expected)
    assert_same(take(train_loader(source, workers=7, facts=VideoFactsCache()), 6), expected)


def test_what_is_known_already_does_not_show(source):
    facts = VideoFactsCache()
    first = take(train_loader(source, facts=facts), 6)
    assert_same(take(train_loader(source, facts=facts), 6), first)


def test_continuing_at_a_position(source):
    expected = take(train_loader(source), 7)
    with train_loader(source) as loader:
        for _ in range(3):
            next(loader)
        position = loader.position
    assert position == 12
    resumed = train_loader(source, first_record=position)
    assert resumed.position == 12
    assert_same(take(resumed, 4), expected[3:])


def test_replicas_share_one_stream(source):
    together = take(train_loader(source, batch_size=8, replicas=4, local_replicas=range(4)), 2)
    apart = [take(train_loader(source, batch_size=8, replicas=4, local_replicas=[r]), 2) for r in range(4)]
    for i, batch in enumerate(together):
        for replica, (clips, labels) in enumerate(batch):
            assert np.array_equal(clips, apart[replica][i][0][0])
            assert np.array_equal(labels, apart[replica][i][0][1])
    assert_same(take(train_loader(source, batch_size=8, replicas=1, local_replicas=[0]), 2), together)


def test_seed_and_purpose_change_the_draws(source):
    first = flat(take(train_loader(source), 2))[0]
    for options in ({"seed": 4}, {"purpose": "val"}):
        assert not np.array_equal(flat(take(train_loader(source, **options), 2))[0], first)


def test_a_crop_too_large_is_refused():
    with pytest.raises(UserError, match="TRAIN.CROP_SIZE 33 is larger than the short side 32"):
        TrainClips(4, 3, 33, (32, 48))
    with pytest.raises(UserError, match="TRAIN.CROP_SIZE 41 is larger than the short side 40 of TEST.SCALE"):
        TestClips(4, 3, 41, 40, 3)


@pytest.fixture
def mixed(videos, tmp_path):
    """A val source of which records 1, 2 and 5 of 6 are bad; and the good ones' labels."""
    bad = [tmp_path / "gone.mp4", tmp_path / "text.mp4", tmp_path / "folder.mp4"]
    bad[1].write_text("no video\n" * 100)
    bad[2].mkdir()
    write_list(
        tmp_path / "val.txt", [videos[0], bad[0], bad[1], videos[3], videos[4], bad[2]], [0, 1, 2, 3, 4, 5]
    )
    return open_train_source(tmp_path, "val", 0, shuffle=False)


def test_the_next_good_record_takes_a_bad_ones_place(mixed, caplog):
    bad_videos = BadVideos(3)
    with caplog.at_level(logging.WARNING):
        batches = take(train_loader(mixed, bad_videos=bad_videos), 3)
    # The stream does not shift: each record keeps its place in it.
    assert flat(batches)[1].tolist() == [0, 3, 3, 3, 4, 0, 0, 3, 3, 3, 4, 0]
    names = ["gone.mp4", "text.mp4", "folder.mp4"]
    assert sorted(os.path.basename(path) for path in bad_videos.paths) == sorted(names)
    for name, reason in zip(names, ("No such file", "not a video", "is a folder"), strict=True):
        lines = [record.message for record in caplog.records if name in record.message]
        assert len(lines) == 1 and reason in lines[0]
    clips = flat(batches)[0]
    assert not np.array_equal(clips[1], clips[2])  # the same video, with the draws of two slots
    assert_same(take(train_loader(mixed, workers=5), 3), batches)


def test_too_many_bad_videos_end_the_run(mixed):
    with pytest.raises(UserError) as caught:
        take(train_loader(mixed, bad_videos=BadVideos(2)), 3)
    message = str(caught.value)
    assert "3 bad videos, DATALOADER.MAX_BAD_IMAGES is 2" in message
    assert all(name in message for name in ("gone.mp4", "text.mp4", "folder.mp4")) and "\n" not in message


def test_a_source_of_bad_videos_ends(tmp_path):
    write_list(tmp_path / "val.txt", [tmp_path / "a", tmp_path / "b"], [0, 1])
    source = open_train_source(tmp_path, "val", 0, shuffle=False)
    with pytest.raises(UserError, match="no record from .*val.txt:1 on has a good video"):
        take(train_loader(source), 1)


def test_a_label_out_of_range_names_the_record(source, videos, tmp_path):
    write_list(tmp_path / "val.txt", videos[:3], [0, 7, 8])
    source = open_train_source(tmp_path, "val", 0, shuffle=False)
    with train_loader(source, batch_size=2) as loader:
        next(loader)  # records 0 and 1 are good: the error comes in their order
        with pytest.raises(UserError, match=r"record .*val.txt:3: the label 8 is not in 0..7"):
            next(loader)
        with pytest.raises(RuntimeError, match="closed"):
            next(loader)
    write_list(tmp_path / "val.txt", videos[:1], [-1])
    with pytest.raises(UserError, match="label -1"):
        take(train_loader(open_train_source(tmp_path, "val", 0, False)), 1)


def test_damage_is_logged_once(tmp_path, caplog):
    path = write_video(tmp_path / "v.avi", moving_square(60, 64, 96), fourcc="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_list(tmp_path / "val.txt", [path], [0])
    source = open_train_source(tmp_path, "val", 0, False)
    bad_videos = BadVideos(0)
    with caplog.at_level(logging.WARNING):
        take(train_loader(source, bad_videos=bad_videos), 2)
        take(train_loader(source, bad_videos=bad_videos), 2)
    assert [record.message.split(":")[0] for record in caplog.records] == [f"Damaged video {str(path)!r}"]
    assert bad_videos.paths == []


# ------------------------------------------------------------------------------------------- life and death


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_over(source):
    take(train_loader(source), 1)
    gc.collect()
    files = open_files()
    for _ in range(5):
        with train_loader(source, workers=4) as loader:
            next(loader)
    loader.close()  # a second time does no harm
    train_loader(source).close()
    assert decoder_threads() == [] and open_files() == files


def test_prefetching_is_bounded(source, monkeypatch):
    started = []
    real = TrainLoader._fill
    monkeypatch.setattr(
        TrainLoader, "_fill", lambda self, slot, *rest: (started.append(slot), real(self, slot, *rest))
    )
    with train_loader(source) as loader:
        next(loader)
        deadline = time.monotonic() + 20
        while len(started) < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sorted(started) == list(range(16))  # the batch handed out, and three of 4 clips ahead


def test_closing_does_not_wait_for_what_is_queued(source, monkeypatch):
    release = threading.Event()
    decoded = []

    def slow(self, path, draws, video):
        decoded.append(path)
        release.wait(20)

    monkeypatch.setattr(TrainLoader, "_decode", slow)
    loader = train_loader(source, workers=2, batch_size=8)
    threading.Timer(0.2, release.set).start()
    loader.close()
    assert len(decoded) <= 2


def test_a_bug_in_a_worker_surfaces(source, monkeypatch):
    monkeypatch.setattr(TrainLoader, "_decode", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(train_loader(source), 1)
    assert decoder_threads() == []


PROGRAM = """
import sys
sys.path.insert(0, "{lib}")
import numpy as np
from data.sources import *
from data.test_loader import *
from data.train_loader import *
if sys.argv[1] == "train":
    source = open_train_source("{folder}", "train", 3, True)
    loader = TrainLoader(source, TrainClips(4, 3, 32, (32, 48)), 4, 1, [0], 3, "train", 8, 2, BadVideos())
else:
    source = open_test_source("{folder}", "test", 0, 3)
    ids = np.arange(1000000, dtype=np.int32) % 24
    loader = TestLoader(source, TestClips(4, 3, 32, 40, 3), np.split(ids, 100000), 2, BadVideos())
with loader:
    for i, batch in enumerate(loader):
        if i == 2:
            print("running", flush=True)
        if i == 4 and sys.argv[2] == "error":
            raise ValueError("the model's")
"""


@pytest.mark.parametrize("end", ["ctrl-c", "error"])
@pytest.mark.parametrize("loader", ["train", "test"])
def test_the_process_ends(repo, videos, tmp_path, python, loader, end):
    for split in ("train", "test"):
        write_list(tmp_path / f"{split}.txt", videos, range(8))
    (tmp_path / "program.py").write_text(PROGRAM.format(lib=repo / "lib", folder=tmp_path))
    process = subprocess.Popen([python, tmp_path / "program.py", loader, end], stdout=-1, stderr=-1, text=True)
    try:
        assert process.stdout.readline() == "running\n"
        if end == "ctrl-c":
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert ("KeyboardInterrupt" if end == "ctrl-c" else "ValueError: the model's") in errors
    assert process.returncode != 0


def test_closing_does_not_wait_for_a_long_video(source, monkeypatch):
    """The threads finish their current frame, not the video."""
    grabbed, real = [], loader_module.sample_frames

    def endless(video, indices_of, keep, facts, stopped, learn):
        def slowly():
            grabbed.append(video.name)
            time.sleep(0.05)
            return stopped()

        return real(video, indices_of, keep, facts, slowly, learn)

    monkeypatch.setattr(loader_module, "sample_frames", endless)
    loader = train_loader(source, workers=1)
    deadline = time.monotonic() + 20
    while not grabbed and time.monotonic() < deadline:
        time.sleep(0.01)
    loader.close()
    assert grabbed and len(grabbed) < 8  # of 10 frames and more


# ------------------------------------------------------------------------- videos whose picture changes its size


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A video of 40 + 40 frames, lying and then upright, as a stream that adapts is recorded."""
    path = tmp_path_factory.mktemp("changing") / "changing.h264"
    for size in ((48, 96), (96, 64)):
        path.write_bytes((path.read_bytes() if path.exists() else b"") + encoded(moving_square(40, *size)))
    assert {frame.shape for frame in every_frame(path)} == {(48, 96, 3), (96, 64, 3)}
    return path


def encoded(frames):
    """H.264 without a container."""
    stream = av.CodecContext.create("libx264", "w")
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt, stream.time_base, stream.options = "yuv420p", Fraction(1, 25), {"g": "12", "preset": "ultrafast"}
    packets = [packet for frame in map(av.VideoFrame.from_ndarray, frames)
               for packet in stream.encode(frame.reformat(format="yuv420p"))]
    return b"".join(map(bytes, [*packets, *stream.encode(None)]))


def test_a_training_clip_has_the_size_of_its_first_frame(changing, tmp_path, caplog):
    write_list(tmp_path / "train.txt", [changing], [0])
    with caplog.at_level(logging.WARNING):
        assert_drawn(open_train_source(tmp_path, "train", seed=3, shuffle=True))
    assert [record.message for record in caplog.records] == [
        f"Unusual video {str(changing)!r}: changes from 96x48 to 64x96 at frame 40"]


def test_test_clips_have_the_size_of_their_first_frames(changing, tmp_path):
    write_list(tmp_path / "test.txt", [changing], [0])
    source = open_test_source(tmp_path, "test", use_multi_crop=2, num_temporal=3)
    clips = TestClips(length=4, rate=8, crop=32, scale=40, temporal_positions=3)  # the middle one holds both sizes
    with TestLoader(source, clips, batches_of(source, range(18), 5), 2, BadVideos()) as loader:
        found = by_ordinal([(clips.numpy(), numbers) for clips, numbers in loader])
    assert sorted(found) == list(range(18))
    for ordinal, clip in found.items():
        assert np.array_equal(clip, expected_clip(source, ordinal, rate=8)), ordinal


def test_whole_frames_have_one_size(changing, tmp_path):
    write_list(tmp_path / "test.txt", [changing], [0])
    source = open_test_source(tmp_path, "test", use_multi_crop=0, num_temporal=3)
    clips = TestClips(length=4, rate=8, crop=None, scale=40, temporal_positions=3)
    with TestLoader(source, clips, batches_of(source, range(3), 3), 2, BadVideos()) as loader:
        ((found, _),) = list(loader)
    assert found.shape == (3, 4, 40, 80, 3)


def test_videos_as_they_are_stored(videos, tmp_path):
    content = bytearray(videos[0].read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    clips = TestClips(length=4, rate=3, crop=None, scale=40, temporal_positions=3)
    shapes = {}
    for as_stored in (False, True):
        write_list(tmp_path / "test.txt", [turned], [0])
        source = open_test_source(tmp_path, "test", use_multi_crop=0, num_temporal=3)
        with TestLoader(source, clips, [np.arange(3)], 1, BadVideos(), as_stored=as_stored) as loader:
            shapes[as_stored] = next(loader)[0].shape[2:4]
    assert shapes == {False: (40, 50), True: (50, 40)}


# ------------------------------------------------------------------------------------------------ testing


@pytest.fixture
def test_source(videos, tmp_path):
    write_list(tmp_path / "test.txt", videos[:3], [0, 1, 2])
    return open_test_source(tmp_path, "test", use_multi_crop=2, num_temporal=3)


def batches_of(source, ordinals, batch_size):
    by_video = np.concatenate([np.empty(0, np.int64), *group_by_video(source.path_ids, ordinals)])
    return [part for part in np.split(by_video, range(batch_size, len(by_video), batch_size)) if len(part)]


def scored(source, ordinals, batch_size=5, workers=2, bad_videos=None):
    batches = batches_of(source, ordinals, batch_size)
    with TestLoader(source, TEST_CLIPS, batches, workers, bad_videos or BadVideos()) as loader:
        return [(clips.numpy(), numbers) for clips, numbers in loader]


def by_ordinal(batches):
    return {
        int(number): clip for clips, numbers in batches for clip, number in zip(clips, numbers, strict=True)
    }


def expected_clip(source, ordinal, rate=3):
    """A clip by decoding everything and indexing."""
    record = source.record(ordinal)
    frames = every_frame(record.path)
    start = transforms.uniform_start(len(frames), 3, record.temporal_index)
    indices = [(start + rate * i) % len(frames) for i in range(4)]
    height, width = transforms.scaled_size(*frames[min(indices)].shape[:2], 40)
    row, column = transforms.crop_offsets(height, width, 32, record.spatial_index)
    clip = [cv2.resize(frames[index], (width, height)) for index in indices]
    clip = np.stack(clip)[:, row : row + 32, column : column + 32]
    return clip[:, :, ::-1] if record.spatial_index >= 3 else clip


def test_every_clip_of_a_test(test_source):
    batches = scored(test_source, range(54))
    assert [len(numbers) for _, numbers in batches] == [5] * 10 + [4]
    assert [n for _, numbers in batches for n in numbers] == list(range(54))
    for ordinal, clip in by_ordinal(batches).items():
        assert np.array_equal(clip, expected_clip(test_source, ordinal)), ordinal


def test_a_video_is_decoded_once_whatever_the_order(test_source, monkeypatch):
    decoded = []
    real = loader_module.sample_frames
    monkeypatch.setattr(
        loader_module, "sample_frames", lambda video, *rest: (decoded.append(video.name), real(video, *rest))[1]
    )
    scattered = np.random.default_rng(0).permutation(54)
    batches = scored(test_source, scattered, workers=1)
    videos = [int(test_source.path_ids[ordinal]) for ordinal in scattered]
    first = sorted(set(videos), key=videos.index)
    assert decoded == [test_source.paths[video] for video in first]
    expected = [o for video in first for o, its in zip(scattered, videos, strict=True) if its == video]
    assert [n for _, numbers in batches for n in numbers] == expected
    straight = by_ordinal(scored(test_source, range(54), batch_size=54, workers=4))
    for ordinal, clip in by_ordinal(batches).items():
        assert np.array_equal(clip, straight[ordinal])


def test_part_of_a_test(test_source):
    # As when a test continues after an interruption, or the last batch wraps around to the first records.
    ordinals = [20, 53, 0, 1, 0]
    found = by_ordinal(scored(test_source, ordinals))
    assert sorted(found) == [0, 1, 20, 53]
    for ordinal, clip in found.items():
        assert np.array_equal(clip, expected_clip(test_source, ordinal))
    assert sum(len(numbers) for _, numbers in scored(test_source, ordinals)) == 5
    assert scored(test_source, []) == []


def test_bad_videos_give_no_clips(videos, tmp_path, caplog):
    write_list(tmp_path / "test.txt", [videos[0], tmp_path / "gone.mp4", videos[1]], [0, 1, 2])
    source = open_test_source(tmp_path, "test", 0, 3)
    bad_videos = BadVideos()
    batches = scored(source, range(9), batch_size=4, bad_videos=bad_videos)
    assert [numbers.tolist() for _, numbers in batches] == [[0, 1, 2], [6, 7], [8]]
    assert bad_videos.paths == [str(tmp_path / "gone.mp4")]
    assert len(caplog.records) == 1


def test_a_test_leaves_nothing_over(test_source):
    scored(test_source, range(54))
    gc.collect()
    files = open_files()
    with TestLoader(test_source, TEST_CLIPS, batches_of(test_source, range(54), 5), 4, BadVideos()) as loader:
        next(loader)
    assert decoder_threads() == [] and open_files() == files


def test_batches_do_not_share_memory(test_source):
    with TestLoader(test_source, TEST_CLIPS, batches_of(test_source, range(54), 9), 2, BadVideos()) as loader:
        batches = [clips for clips, _ in loader]
    assert len({clips.data_ptr() for clips in batches}) == len(batches)
    assert all(isinstance(clips, torch.Tensor) and clips.dtype == torch.uint8 for clips in batches)


# ------------------------------------------------------------------------------------------ real videos


def test_the_reference_clips(shared):
    """120 clips of real videos."""
    results = list(reference_data.check_clips(shared / "reference/test_clips.json", None))
    assert [line for line in results if not line[1] <= line[2]] == [] and len(results) == 4
