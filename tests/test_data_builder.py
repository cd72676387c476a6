from dataclasses import replace

import numpy as np
import pytest
import torch
from video_files import make_videos, write_list

from core.config import load_config
from data import data_builder
from data.sources import group_by_video
from engine.replicas import Replicas
from video.bad_videos import BadVideos
from video.decoder import VideoFile

MEAN, STD = 114.75, 57.375


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "videos").mkdir()
    videos = make_videos(tmp_path / "videos", 4)
    for split in ("train", "val", "test"):
        write_list(tmp_path / f"{split}.txt", videos, range(4))
    cfg = load_config(None, [])
    cfg.DATADIR, cfg.CHECKPOINT.DIR, cfg.NUM_GPUS = str(tmp_path), str(tmp_path), 2
    cfg.MODEL.NUM_CLASSES, cfg.TEST.DATA_TYPE, cfg.TEST.DATASET_SIZE = 4, "val", 4
    cfg.TRAIN.update(BATCH_SIZE=4, VIDEO_LENGTH=3, SAMPLE_RATE=4, CROP_SIZE=32, JITTER_SCALES=[32, 40])
    cfg.TEST.update(BATCH_SIZE=4, SCALE=32, NUM_TEST_CLIPS=2, USE_MULTI_CROP=0)
    yield cfg
    data_builder._known_facts.cache_clear()


def batches(cfg, number=3):
    with data_builder.train_loader(cfg, Replicas(2), BadVideos()) as loader:
        return torch.stack([clips for _ in range(number) for clips, _ in next(loader)])


def test_saved_frame_counts_do_not_change_the_clips(cfg, tmp_path, monkeypatch):
    clips = batches(cfg)
    counted = (tmp_path / "frame_counts.txt").read_text().count("video")
    assert counted >= 4

    # Another process has only the file, and need not read any video to its end.
    data_builder._known_facts.cache_clear()
    whole, read = [], VideoFile._read_to_end
    monkeypatch.setattr(VideoFile, "_read_to_end", lambda self, *rest: whole.append(self.name) or read(self, *rest))
    assert torch.equal(batches(cfg), clips)
    assert not whole

    (tmp_path / "frame_counts.txt").write_bytes(b"\xff no counts\n" * 100)
    data_builder._known_facts.cache_clear()
    assert torch.equal(batches(cfg), clips)
    assert whole


def test_all_loaders_share_the_known_facts(cfg, tmp_path):
    batches(cfg)
    with data_builder.val_loader(cfg, Replicas(2), BadVideos()) as loader:
        next(loader)
    protocol = replace(data_builder.protocol_of_test(cfg), crop=32)
    source = data_builder.test_source(cfg, protocol)
    all_clips = group_by_video(source.path_ids, np.arange(len(source)))
    with data_builder.test_loader(cfg, Replicas(2), protocol, source, all_clips, BadVideos()) as loader:
        assert sum(len(clips) for clips, _ in loader) == 8
    lines = (tmp_path / "frame_counts.txt").read_text().split("\n")[1:]
    assert len(set(lines)) == 4


def test_preprocessing_normalises_the_clips(cfg):
    clips = torch.arange(256, dtype=torch.uint8).repeat(6).reshape(1, 2, 16, 16, 3)
    prepared = data_builder.Preprocessor(cfg, torch.device("cpu")).clips(clips)
    expected = (clips.double() - MEAN) / STD
    assert prepared.dtype == torch.float32 and prepared.shape == (1, 3, 2, 16, 16)
    assert (prepared.permute(0, 2, 3, 4, 1) - expected).abs().max() <= 2.4e-7


def test_replicas_are_prepared_one_at_a_time(cfg):
    clips, labels = torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    taken = []
    batch = ((taken.append(i) or clips, labels) for i in range(8))
    prepared = data_builder.Preprocessor(cfg, torch.device("cpu")).batch(batch)
    for i in range(8):
        next(prepared)
        assert taken == list(range(i + 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_for_a_gpu_are_page_locked(cfg):
    device = torch.device("cuda")
    expected = batches(cfg)
    prepare = data_builder.Preprocessor(cfg, device)
    with data_builder.train_loader(cfg, Replicas(2, device=device), BadVideos()) as loader:
        for i in range(3):
            batch = next(loader)
            assert all(clips.is_pinned() and labels.is_pinned() for clips, labels in batch)
            for (clips, labels), whole in zip(prepare.batch(batch), expected[2 * i : 2 * i + 2], strict=True):
                assert clips.device.type == labels.device.type == "cuda"
                here = data_builder.Preprocessor(cfg, torch.device("cpu")).clips(whole)
                assert (clips.cpu() - here).abs().max() <= 2.4e-7
