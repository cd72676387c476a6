#!/usr/bin/env python3
"""Show where a non-local block of a trained network looks: figure 3 of the paper, for any video.

    python tools/visualize_attention.py --config_file configs/F.yaml --video FILE --output FOLDER TEST.PARAMS_FILE W.pkl

For each clip it writes a PNG, the frames side by side with arrows from a point to the positions that the block attends
to most, over a heat map of all of them, and an MP4 of all frames. The frames are what the network sees: the short side
is TEST.SCALE pixels, and the square of TRAIN.JITTER_SCALES[0] in the centre is cut out. Without --position it takes the
points whose attention is the most concentrated (of the smallest entropy), a quarter of the frame apart.
"""

import _init_paths  # noqa: F401, I001  (puts lib/ on the path)

import argparse
import copy
import logging
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from core.config import load_config
from data import transforms
from data.data_builder import Preprocessor, test_loader
from video.video_facts import VideoFactsCache
from video.bad_videos import BadVideos
from data.sources import expand_test_videos
from video.bad_videos import BadVideo
from video.sampling import open_video, sample_frames
from models.attention_maps import affinity, block_input, entropy, key_window, most_selective, nonlocal_blocks
from models.model_builder_video import create_model
from models.receptive_field import input_grid
from utils import cli
from reports.attention_pictures import STYLES, Attention, draw_clip, write_movie
from utils.checkpoints import initialize_params_from_file, load_blobs
from utils.errors import UserError
from utils.files import make_folder
from engine.launcher import launch


def parse_position(text):
    """'3,120,88' -> (3, 120, 88): frame of the clip, row and column in it."""
    if not re.fullmatch(r"\d{1,6},\d{1,6},\d{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected FRAME,ROW,COLUMN such as 0,120,88, got {text!r}")
    return tuple(map(int, text.split(",")))


def centre_crop_config(cfg, clips):
    """A copy of the configuration for `clips` clips of a video, the centre crop of each, on one device."""
    cfg = copy.deepcopy(cfg)
    cfg.TRAIN.CROP_SIZE = cfg.TRAIN.JITTER_SCALES[0]
    cfg.TEST.USE_MULTI_CROP, cfg.TEST.NUM_TEST_CLIPS = 0, clips
    cfg.NUM_GPUS = 1
    return cfg


def read_clips(cfg, replicas, video):
    """The clips of a video: uint8 clips x L x c x c x 3 (RGB), and the numbers of their frames, clips x L.

    Raises UserError if the video cannot be read.
    """
    count, counts = cfg.TEST.NUM_TEST_CLIPS, VideoFactsCache()
    try:
        frames = sample_frames(open_video(video), lambda _: (), lambda *_: None, counts).count
    except BadVideo as error:
        raise UserError(str(error)) from error
    source = expand_test_videos([video], cfg.TEST.USE_MULTI_CROP, count)
    with test_loader(cfg, replicas, source, [np.arange(count)], BadVideos(max_bad=0), counts) as loader:
        clips, _ = next(loader)
    starts = [transforms.uniform_start(frames, count, i) for i in range(count)]
    return clips, np.array([transforms.clip_indices(start, cfg.TRAIN.VIDEO_LENGTH, cfg.TRAIN.SAMPLE_RATE, frames)
                            for start in starts])


def load_with_block(cfg, device, block):
    """(the network with its weights, in inference mode; name of the block; None is the last one).

    As it is built, and not as models.inference may change it for speed: its modules are looked into. Raises UserError
    if there is no such block, in the network or in the weights.
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
    if f"{block}_theta_w" not in load_blobs(weights_file):
        raise UserError(f"{weights_file}: the block {block} is not in it ({block}_theta_w): the weights are of another "
                        "network")
    initialize_params_from_file(model, weights_file)
    return model, block


def check_positions(positions, shape):
    """Raise UserError for a position outside a clip of shape (L, H, W)."""
    for position in positions:
        if any(x >= size for x, size in zip(position, shape, strict=True)):
            ranges = ",".join(f"0..{size - 1}" for size in shape)
            raise UserError(f"--position: expected FRAME,ROW,COLUMN in {ranges} (the clip as the network sees it), "
                            f"got {','.join(map(str, position))}")


@torch.inference_mode()
def attend(model, name, clip, positions, number, arrows):
    """What points of a clip attend to in the block `name`.

    Args:
        clip: 1 x 3 x L x H x W, normalised.
        positions: (frame, row, column) of points; the nearest cells are taken. None: `number` points of
            models.attention_maps.most_selective.
        arrows: see Attention.

    Returns: a list of Attention, with the entropy of each in nats.
    """
    block = getattr(model, name)
    x = block_input(model, name, clip)
    shape, queries = x.shape[2:], input_grid(model, name)
    window = key_window(block)
    keys = queries.through(*window)
    key_shape = [size // stride for size, stride in zip(shape, window[1], strict=True)]
    cells = [queries.nearest(position, shape) for position in positions] or most_selective(block, x, number)
    rows = torch.tensor([int(np.ravel_multi_index(cell, shape)) for cell in cells], device=x.device)
    weights = affinity(block, x, rows)
    return [(Attention(tuple(queries.centres(cell).tolist()), row.reshape(key_shape).cpu().numpy(), keys.first,
                       keys.step, arrows), float(spread))
            for cell, row, spread in zip(cells, weights[0], entropy(weights)[0], strict=True)]


def visualize(cfg, replicas, args):
    """Write the pictures of the command line's video. Returns the exit status."""
    model, block = load_with_block(cfg, replicas.device, args.block)
    clips, frame_numbers = read_clips(cfg, replicas, args.video)
    check_positions(args.position, clips.shape[1:4])
    make_folder(args.output)
    prepare = Preprocessor(cfg, replicas.device)
    for i, (clip, numbers) in enumerate(zip(clips, frame_numbers, strict=True)):
        found = attend(model, block, prepare.clips(clip[None]), args.position, args.number, args.arrows)
        if not found:
            raise UserError(f"{block}: no position of clip {i} has a positive weight")
        names = [f"frame {number}" for number in numbers]
        path = Path(args.output) / f"{Path(args.video).stem}_{block}_clip{i}"
        title = f"{Path(args.video).name}, {block}, frames {numbers[0]} to {numbers[-1]}"
        attentions = [attention for attention, _ in found]
        draw_clip(path.with_name(path.name + ".png"), clip.numpy(), names, attentions, title, args.style)
        write_movie(path.with_name(path.name + ".mp4"), clip.numpy(), names, attentions, args.style)
        print(f"{path}.png, .mp4: {title}")
        for attention, spread in found:
            frame, row, column = attention.query
            print(f"  --position {int(frame)},{row:g},{column:g}: entropy {spread:.3f} of "
                  f"{math.log(attention.weights.size):.3f} nats")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", metavar="YAML", help="file of options")
    parser.add_argument("--video", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the pictures go; made if need be")
    parser.add_argument("--block", metavar="NAME", help="such as nonlocal_conv4_5; default: the last one")
    parser.add_argument("--position", type=parse_position, action="append", default=[], metavar="FRAME,ROW,COLUMN",
                        help="a point to look from: frame of the clip and pixel of the frame as the network sees it, "
                             "from 0; the nearest cell of the block's feature map is taken; may be given again")
    parser.add_argument("--number", type=int, default=3, metavar="N",
                        help="how many points are chosen without --position; default: 3")
    parser.add_argument("--clips", type=int, default=1, metavar="N",
                        help="clips, spread over the video as a test does it; default: one, from its start")
    parser.add_argument("--style", choices=STYLES, default="both", help="default: both")
    parser.add_argument("--arrows", type=int, default=20, metavar="N", help="arrows from a point; default: 20")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE",
                        help="options over those of the file; TEST.PARAMS_FILE (the weights) is needed")
    if len(sys.argv) == 1:
        parser.print_help()
        return 1
    args = parser.parse_args()
    for name in ("number", "clips", "arrows"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}: expected a number of at least 1, got {getattr(args, name)}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    cfg = centre_crop_config(load_config(args.config_file, args.opts), args.clips)
    return launch(lambda cfg, replicas: visualize(cfg, replicas, args), cfg)


if __name__ == "__main__":
    cli.run(main)
