"""Pictures and films of what a non-local block of a trained network attends to in a video."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import transforms
from data.data_builder import Preprocessor, test_loader
from data.sources import expand_test_videos
from data.test_protocol import TestProtocol
from engine.replicas import Replicas
from formats.blobs import Checkpoint, read_checkpoint
from models.attention_maps import attention_weights, block_input, entropy, key_window, most_selective, nonlocal_blocks
from models.model_builder_video import create_model
from models.receptive_field import input_grid
from models.resnet_video import ResNetVideo
from reports.attention_pictures import Attention, draw_clip, write_movie
from utils.checkpoints import load_weights
from utils.collections import AttrDict
from utils.errors import UserError
from utils.files import make_folder
from video.bad_videos import BadVideo, BadVideos
from video.sampling import open_video, sample_frames
from video.video_facts import VideoFactsCache

Position = tuple[int, ...]  # frame, row, column


@dataclass(frozen=True)
class AttentionRequest:
    """What to show.

    Attributes:
        video: the file.
        output: folder of the pictures; created if necessary, where pictures are written.
        block: name of a non-local block; None for the last one.
        positions: points to look from, (frame, row, column) in the clip as the network sees it; the nearest cells are
            taken. Empty: the `number` points with the most concentrated attention.
        number: see positions.
        clips: how many, spread over the video.
        style: one of reports.attention_pictures.STYLES.
        arrows: how many of the largest weights to draw from each point.
    """

    video: str
    output: str
    block: str | None = None
    positions: Sequence[Position] = ()
    number: int = 3
    clips: int = 1
    style: str = "both"
    arrows: int = 20


@dataclass(frozen=True)
class ClipPictures:
    """What was written for a clip: `path` with .png and .mp4, a title, and the entropy of each point in nats."""

    path: Path
    title: str
    attentions: list[Attention] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The summary for the screen; it names the points as the command line takes them."""
        yield f"{self.path}.png, .mp4: {self.title}"
        for attention, spread in zip(self.attentions, self.entropies, strict=True):
            frame, row, column = attention.query
            yield (f"  --position {int(frame)},{row:g},{column:g}: entropy {spread:.3f} of "
                   f"{math.log(attention.weights.size):.3f} nats")


def center_crop_protocol(cfg: AttrDict, clips: int) -> TestProtocol:
    """`clips` clips of a video; of each, the center crop of TRAIN.JITTER_SCALES[0] or (TEST_FULL_SIZE) whole frames."""
    crop = None if cfg.TEST.TEST_FULL_SIZE else cfg.TRAIN.JITTER_SCALES[0]
    return TestProtocol(cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.SAMPLE_RATE, cfg.TEST.SCALE, crop, multi_crop=0, clips=clips)


@dataclass(frozen=True)
class AttendedClip:
    """What points of a clip attend to.

    Attributes:
        frames: L x H x W x 3 uint8 RGB, as the network sees them.
        names: L labels of the frames.
        title: of a picture.
        attentions: one for each point.
        entropies: of each, in nats.
    """

    frames: np.ndarray
    names: list[str]
    title: str
    attentions: list[Attention]
    entropies: list[float]


def visualize(cfg: AttrDict, replicas: Replicas, request: AttentionRequest) -> Iterator[ClipPictures]:
    """Write the pictures of a video and yield those of each clip.

    Raises:
        UserError: options, weights or positions that do not fit, or a video that cannot be read.
    """
    model, block = load_with_block(cfg, replicas.device, request.block)
    for i, clip in enumerate(attended_clips(cfg, replicas, model, block, request)):
        make_folder(request.output)
        path = Path(request.output) / f"{Path(request.video).stem}_{block}_clip{i}"
        draw_clip(path.with_name(path.name + ".png"), clip.frames, clip.names, clip.attentions, clip.title,
                  request.style)
        write_movie(path.with_name(path.name + ".mp4"), clip.frames, clip.names, clip.attentions, request.style)
        yield ClipPictures(path, clip.title, clip.attentions, clip.entropies)


def attended_clips(cfg: AttrDict, replicas: Replicas, model: ResNetVideo, block: str,
                   request: AttentionRequest) -> Iterator[AttendedClip]:
    """What the points of a request attend to, for each clip of its video; see load_with_block.

    Raises:
        UserError: positions that do not fit, or a video that cannot be read.
    """
    clips, frame_numbers = read_clips(cfg, replicas, center_crop_protocol(cfg, request.clips), request.video)
    check_positions(request.positions, clips.shape[1:4])
    prepare = Preprocessor(cfg, replicas.device)
    for i, (clip, numbers) in enumerate(zip(clips, frame_numbers, strict=True)):
        found = attend(model, block, prepare.clips(clip[None]), request)
        if not found:
            raise UserError(f"{block}: no position of clip {i} has a positive weight")
        attentions, entropies = map(list, zip(*found, strict=True))
        title = f"{Path(request.video).name}, {block}, frames {numbers[0]} to {numbers[-1]}"
        yield AttendedClip(clip.numpy(), [f"frame {number}" for number in numbers], title, attentions, entropies)


def load_with_block(cfg: AttrDict, device: torch.device, block: str | None) -> tuple[ResNetVideo, str]:
    """(the network with its weights, in inference mode; name of the block; None is the last one).

    The network is as it is built, not transformed for speed, since its modules are examined. Raises UserError if the
    network or the weights do not have the block.
    """
    weights_file = cfg.TEST.PARAMS_FILE
    if not weights_file:
        raise UserError("TEST.PARAMS_FILE is not set: give the weights of the network")
    model = create_model(cfg, "test").to(device)
    names = nonlocal_blocks(model)
    if not names:
        raise UserError("the network has no non-local block: NONLOCAL.CONV3_NONLOCAL and CONV4_NONLOCAL are False")
    block = block or names[-1]
    if block not in names:
        raise UserError(f"--block: expected one of {', '.join(names)}, got {block!r}")
    checkpoint = read_checkpoint(weights_file)
    check_block(model, block, checkpoint)
    load_weights(model, checkpoint).warn_if_unfolded()
    return model, block


def check_block(model: ResNetVideo, block: str, checkpoint: Checkpoint) -> None:
    """Raise UserError unless a checkpoint has the weights that the block's attention is computed from."""
    for layer in (*getattr(model, block).affinity.make_layers(bias=False), "g"):
        if f"{block}_{layer}_w" not in checkpoint.blobs:
            raise UserError(f"{checkpoint.path}: the block {block} is not in it ({block}_{layer}_w): the weights are "
                            "of another network")


def read_clips(cfg: AttrDict, replicas: Replicas, protocol: TestProtocol, video: str) -> tuple[Tensor, np.ndarray]:
    """The clips of a video: uint8 clips x L x c x c x 3 (RGB), and the numbers of their frames, clips x L.

    Raises UserError if the video cannot be read.
    """
    count, facts = protocol.clips, VideoFactsCache()
    try:
        frames = sample_frames(open_video(video, cfg.DATALOADER.AS_STORED), lambda _: (), lambda *_: None, facts).count
    except BadVideo as error:
        raise UserError(str(error)) from error
    source = expand_test_videos([video], protocol.multi_crop, count)
    with test_loader(cfg, replicas, protocol, source, [np.arange(count)], BadVideos(max_bad=0), facts) as loader:
        clips, _ = next(loader)
    starts = [transforms.uniform_start(frames, count, i) for i in range(count)]
    return clips, np.array([transforms.clip_indices(start, protocol.frames, protocol.stride, frames)
                            for start in starts])


def check_positions(positions: Sequence[Position], shape: Sequence[int]) -> None:
    """Raise UserError for a position outside a clip of shape (L, H, W)."""
    for position in positions:
        if any(x >= size for x, size in zip(position, shape, strict=True)):
            ranges = ",".join(f"0..{size - 1}" for size in shape)
            raise UserError(f"--position: expected FRAME,ROW,COLUMN in {ranges} (the clip as the network sees it), "
                            f"got {','.join(map(str, position))}")


@torch.inference_mode()
def attend(model: ResNetVideo, name: str, clip: Tensor, request: AttentionRequest) -> list[tuple[Attention, float]]:
    """What points of a normalised clip 1 x 3 x L x H x W attend to in the block `name`, and the entropies in nats."""
    block = getattr(model, name)
    x = block_input(model, name, clip)
    shape, queries = tuple(x.shape[2:]), input_grid(model, name)
    window = key_window(block)
    keys = queries.through(*window)
    key_shape = [size // stride for size, stride in zip(shape, window[1], strict=True)]
    cells = [queries.nearest(position, shape) for position in request.positions] or most_selective(
        block, x, request.number)
    rows = torch.tensor([int(np.ravel_multi_index(cell, shape)) for cell in cells], device=x.device)
    weights = attention_weights(block, x, rows)
    return [(Attention(tuple(queries.centres(cell).tolist()), row.reshape(key_shape).cpu().numpy(), keys.first,
                       keys.step, request.arrows), float(spread))
            for cell, row, spread in zip(cells, weights[0], entropy(weights)[0], strict=True)]
