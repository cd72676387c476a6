"""Folders of numbered images, which stand for videos wherever a path of one is expected."""

import os
import shutil

import cv2
import numpy as np
import pytest
from video_files import moving_square, write_frames, write_items, write_list, write_video

from data.lmdb_writer import clip_items, train_items
from data.sources import group_by_video, open_test_source, open_train_source
from data.test_loader import TestClips, TestLoader
from data.train_loader import TrainClips, TrainLoader
from video.bad_videos import BadVideo, BadVideos
from video.decoder_processes import DecoderProcesses
from video.frame_folder import is_frame_folder
from video.sampling import count_frames, open_video, sample_frames
from video.video import Stopped
from video.video_facts import VideoFacts, VideoFactsCache

FRAMES = moving_square(13, 48, 64, seed=3)
SIZES = [(24, 80, 64), (10, 64, 96), (7, 64, 64)]  # frames, height, width


def sampled(folder, indices_of=range, cache=None, stopped=lambda: False):
    """(VideoFacts, the wanted frames in their order)."""
    found = {}

    def keep(places, frame):
        found.update(dict.fromkeys(places, frame.copy()))

    cache = VideoFactsCache() if cache is None else cache
    facts = sample_frames(open_video(str(folder)), indices_of, keep, cache, stopped)
    return facts, [found[place] for place in range(len(found))]


def reason(folder, indices_of=range):
    with pytest.raises(BadVideo) as caught:
        sampled(folder, indices_of)
    assert caught.value.name == str(folder) and "\n" not in str(caught.value)
    return caught.value.reason


def examined(path):
    with DecoderProcesses(1, 60) as decoders:
        ((_, outcome),) = decoders.decode([str(path)])
    return outcome.facts


# ------------------------------------------------------------------------------------------------- loaders


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """(files, folders) of the same frames."""
    folder = tmp_path_factory.mktemp("pairs")
    files = [str(write_video(folder / f"{i}.avi", moving_square(*size, seed=i), fourcc="FFV1"))
             for i, size in enumerate(SIZES)]
    folders = [str(write_frames(folder / f"frames{i}", sampled(path)[1])) for i, path in enumerate(files)]
    return files, folders


@pytest.mark.parametrize("lmdb", [False, True])
def test_training_clips_are_those_of_the_video(pairs, tmp_path, lmdb):
    def batches(name, paths):
        if lmdb:
            write_items(tmp_path / name, train_items([(os.fsencode(path), [i]) for i, path in enumerate(paths)]))
        else:
            write_list(tmp_path / f"{name}.txt", paths, range(3))
        source, bad_videos = open_train_source(tmp_path, name, 5, shuffle=True), BadVideos(0)
        with TrainLoader(source, TrainClips(4, 3, 32, (32, 48)), 4, 1, [0], 7, "train", 3, 2, bad_videos) as loader:
            taken = [next(loader)[0] for _ in range(6)]
        assert bad_videos.known() == ({}, {})
        return np.concatenate([clips for clips, _ in taken]), np.concatenate([labels for _, labels in taken])

    for one, other in zip(batches("files", pairs[0]), batches("folders", pairs[1]), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("lmdb", [False, True])
def test_test_clips_are_those_of_the_video(pairs, tmp_path, lmdb):
    def clips_of(name, paths):
        if lmdb:
            write_items(tmp_path / name, clip_items([(os.fsencode(path), [i]) for i, path in enumerate(paths)], 6))
        else:
            write_list(tmp_path / f"{name}.txt", paths, range(3))
        source = open_test_source(tmp_path, name, use_multi_crop=2, num_temporal=10)
        batches = group_by_video(source.path_ids, range(len(source)))
        with TestLoader(source, TestClips(4, 3, 32, 40, 10), batches, 2, BadVideos(0)) as loader:
            return [array for clips, ordinals in loader for array in (clips.numpy(), ordinals)]

    found = clips_of("folders", pairs[1])
    assert len(found) == 6
    for one, other in zip(clips_of("files", pairs[0]), found, strict=True):
        assert np.array_equal(one, other)


def test_bad_folders_are_replaced_as_bad_files_are(pairs, tmp_path):
    (tmp_path / "empty").mkdir()
    write_list(tmp_path / "val.txt", [pairs[1][0], tmp_path / "empty", pairs[0][1]], range(3))
    bad_videos = BadVideos(1)
    with TrainLoader(open_train_source(tmp_path, "val", 0, False), TrainClips(4, 3, 32, (32, 48)), 3, 1, [0], 7, "val",
                     3, 2, bad_videos) as loader:
        assert next(loader)[0][1].tolist() == [0, 2, 2]
    assert bad_videos.paths == [str(tmp_path / "empty")]


# -------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(("name", "first"), [("{:06d}.png", 1), ("img_{:05d}.png", 1), ("{}.PNG", 0), ("{}.png", 95)])
def test_images_in_the_order_of_their_numbers(tmp_path, name, first):
    folder = write_frames(tmp_path / "frames", FRAMES, name, first)
    for other in ("flow_x_00003.jpg", "notes.txt", "7.txt", ".000003.png", "000003.png.tmp", "cover.png"):
        (folder / other).write_text("not a frame")
    (folder / "000500.png").mkdir()
    facts, frames = sampled(folder)
    assert facts == VideoFacts(13, None) and np.array_equal(frames, FRAMES)
    assert count_frames(str(folder)) == 13
    assert examined(folder) == VideoFacts(13, None, skips=False)


def test_wanted_frames_only(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)
    for number in (1, 5, 13):
        (folder / f"{number:06d}.png").write_bytes(b"no image")
    _, frames = sampled(folder, lambda count: [count - 2, 6, 6, 1])
    assert np.array_equal(frames, FRAMES[[11, 6, 6, 1]])


def test_jpegs(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES, "img_{:05d}.jpg")
    _, frames = sampled(folder)
    for i, frame in enumerate(frames):
        assert np.array_equal(frame, cv2.imread(str(folder / f"img_{i + 1:05d}.jpg"))[..., ::-1])
    shutil.copy(folder / "img_00001.jpg", folder / "img_00014.jpeg")
    assert np.array_equal(sampled(folder)[1][13], frames[0])


def test_every_kind_of_image_becomes_eight_bit_rgb(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    grey = FRAMES[0][..., 1]
    kinds = [grey, grey.astype(np.uint16) * 257, np.dstack([FRAMES[0][..., ::-1], grey]), FRAMES[0][..., ::-1]]
    for number, image in enumerate(kinds):
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
    _, frames = sampled(folder)
    expected = [np.dstack([grey] * 3)] * 2 + [FRAMES[0]] * 2
    assert np.array_equal(frames, expected) and frames[0].dtype == np.uint8


def test_the_picture_is_not_rotated(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES[:1], "{}.jpg")
    image = (folder / "1.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn it right
    (folder / "1.jpg").write_bytes(image[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + image[2:])
    assert cv2.imread(str(folder / "1.jpg")).shape == (64, 48, 3)  # the file does ask for it
    assert sampled(folder)[1][0].shape == (48, 64, 3)


def test_stopping(tmp_path):
    asked = []
    with pytest.raises(Stopped):
        sampled(write_frames(tmp_path / "frames", FRAMES), stopped=lambda: asked.append(1) or len(asked) == 4)
    assert len(asked) == 4


def test_only_the_first_10000_frames_count(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES[:1])
    for number in range(2, 10_004):
        os.link(folder / "000001.png", folder / f"{number:06d}.png")
    assert count_frames(str(folder)) == 10_000


# --------------------------------------------------------------------------------------------------- faults


def test_folders_without_frames(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "video.mp4").touch()
    expected = "is a folder without frames: expected images 000001.jpg, 000002.jpg, ... (or img_00001.jpg; or png)"
    assert reason(tmp_path) == examined(tmp_path).damage == expected
    assert reason(tmp_path / "none") == "No such file or directory"


def test_two_images_of_one_number(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)
    shutil.copy(folder / "000002.png", folder / "img_00002.png")
    assert reason(folder) == "has two images of number 2: 000002.png and img_00002.png"


def test_gaps_are_damage(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)
    for number in (4, 5, 9):
        (folder / f"{number:06d}.png").unlink()
    facts, frames = sampled(folder)
    damage = "image number 4 is missing (3 in all); used with the 10 images that exist"
    assert facts == VideoFacts(10, damage)
    assert np.array_equal(frames, FRAMES[[0, 1, 2, 5, 6, 7, 9, 10, 11, 12]])
    assert examined(folder) == VideoFacts(10, damage, skips=False)


def cut_short(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(("name", "spoil", "what"), [
    ("{:06d}.png", cut_short, "is cut short"),
    ("{:06d}.jpg", cut_short, "is cut short"),
    ("{:06d}.jpg", lambda content: b"", "is not a JPEG or PNG image"),
    ("{:06d}.jpg", lambda content: b"GIF89a" + content, "is not a JPEG or PNG image"),
    ("{:06d}.png", lambda content: content[:30] + bytes(200) + content[230:], "does not decode"),
    ("{:06d}.jpg", lambda content: content[:2] + bytes(200) + b"\xff\xd9", "does not decode"),
])  # fmt: skip
def test_an_image_that_cannot_be_read(tmp_path, name, spoil, what):
    folder = write_frames(tmp_path / "frames", FRAMES, name)
    file = folder / name.format(5)
    file.write_bytes(spoil(file.read_bytes()))
    assert reason(folder) == f"{file.name} {what}"
    assert sampled(folder, lambda count: [3, 5])[0] == VideoFacts(13, None)
    known = examined(folder)
    assert known == VideoFacts(13, f"{file.name} {what}", skips=False)
    # What the check has found changes no clip: a clip without that image is still given, with a note.
    cache, video = VideoFactsCache(), open_video(str(folder))
    cache.put(video.name, video.fingerprint, known)
    facts, frames = sampled(folder, lambda count: [3, 5], cache)
    assert facts.damage == known.damage and len(frames) == 2


def test_no_image_can_be_read(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES[:2])
    for file in folder.iterdir():
        file.write_bytes(b"nothing")
    assert examined(folder) == VideoFacts(0, "no image can be read: 000002.png is not a JPEG or PNG image")
    assert reason(folder) == "000001.png is not a JPEG or PNG image"


def test_mixed_sizes(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)
    cv2.imwrite(str(folder / "000008.png"), np.zeros((50, 64, 3), np.uint8))
    what = "000008.png is 50 x 64 pixels, images before it 48 x 64"
    assert reason(folder) == what and examined(folder) == VideoFacts(13, what, skips=False)
    assert len(sampled(folder, lambda count: [6, 8])[1]) == 2


def test_several_faults(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)
    (folder / "000003.png").write_bytes(b"")
    (folder / "000006.png").unlink()
    assert examined(folder).damage == (
        "image number 6 is missing (1 in all); used with the 12 images that exist (and 1 more)"
    )


# ----------------------------------------------------------------------------------- fingerprints, questions


def test_any_change_shows_in_the_fingerprint(tmp_path):
    folder = write_frames(tmp_path / "frames", FRAMES)

    def fingerprint():
        return open_video(str(folder)).fingerprint

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    (folder / "000004.png").rename(folder / "000014.png")
    seen.append(fingerprint())
    (folder / "000014.png").unlink()
    seen.append(fingerprint())
    os.utime(folder / "000002.png", ns=(2**62, 2**62))
    seen.append(fingerprint())
    with open(folder / "000003.png", "ab") as file:
        file.write(b"x")
    seen.append(fingerprint())
    assert len(set(seen)) == 5
    (folder / "notes.txt").touch()
    assert fingerprint() == seen[-1]


def test_what_a_frame_folder_is(tmp_path):
    folder = write_frames(tmp_path / "class/frames", FRAMES[:1])
    assert is_frame_folder(folder) and is_frame_folder(str(folder))
    assert not any(map(is_frame_folder, (tmp_path / "class", folder / "000001.png", tmp_path / "none", "a\0b")))
