"""Pictures of the videos of a test: strips of their frames, and what the network attends to in them."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core.assignment import set_options
from core.config import assert_and_infer_cfg
from core.defaults import default_config
from engine.attention import AttentionRequest, attended_clips, load_with_block
from engine.launcher import launch
from engine.replicas import Replicas
from engine.run_folder import RunFolder
from reports.attention_pictures import draw_clip
from reports.film_strip import data_uri, film_strip
from utils.collections import AttrDict
from utils.errors import UserError
from video.bad_videos import BadVideo

ARROWS = 20  # of an attention picture


@dataclass(frozen=True)
class AttentionPicture:
    """What a block attends to in a clip: a picture as a data: URI, a title, whether the picture is a wide one."""

    picture: str
    title: str
    wide: bool


def strip_of(run: RunFolder, path: str) -> tuple[str, str]:
    """(data: URI of a strip of frames, "") of a video in the list of a run's test; or ("", why there is none)."""
    found = run.find(path)
    if found is None:
        return "", "not at its path"
    try:
        return data_uri(film_strip(str(found), bool(run.test_options.get("DATALOADER.AS_STORED")))), ""
    except BadVideo as error:
        return "", error.reason


def attention_pictures(run: RunFolder, weights: Path, videos: Iterable[Path]) -> list[AttentionPicture]:
    """Where the last non-local block of a run's network looks in the first clip of each video, from one point.

    Raises:
        UserError: the options in the log or the weights are not those of a network with a non-local block, or a video
            cannot be read.
    """
    cfg, pictures = configuration(run, weights), list[AttentionPicture]()

    def draw(cfg: AttrDict, replicas: Replicas) -> None:
        model, block = load_with_block(cfg, replicas.device, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.png")
            for video in videos:
                request = AttentionRequest(str(video), folder, number=1, arrows=ARROWS)
                for clip in attended_clips(cfg, replicas, model, block, request):
                    draw_clip(path, clip.frames, clip.names, clip.attentions, clip.title, request.style)
                    picture = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
                    pictures.append(AttentionPicture(data_uri(picture), clip.title, picture.shape[1] > 1000))

    launch(draw, cfg)
    return pictures


def configuration(run: RunFolder, weights: Path) -> AttrDict:
    """The options of a run's test, for one device of this machine and these weights.

    Raises UserError if they are not in its log, or wrong.
    """
    if not run.test_options:
        raise UserError(f"{run.log_file}: expected the options of the run after 'Training with config:', found none")
    cfg = default_config()
    given: dict[str, Any] = run.test_options | {
        "TEST.PARAMS_FILE": str(weights), "NUM_GPUS": 1, "NUM_PROCESSES": 0, "ROOT_GPU_ID": 0}
    set_options(cfg, list(given.items()), source=str(run.log_file))
    assert_and_infer_cfg(cfg)
    return cfg
