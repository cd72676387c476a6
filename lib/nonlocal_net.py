"""The door for other Python programs, with `lib` on their path.

    from nonlocal_net import load_model, predict

    model = load_model("i3d_nonlocal_8x8_IN_pretrain_400k.pkl")
    classes, probabilities = predict(model, "video.mp4")

Everything here lives elsewhere; see lib/README.md for where.
"""

from core.config import load_config
from engine.video_model import Prediction, VideoModel, load_model, predict
from models.model_builder_video import create_model
from utils.errors import UserError

__all__ = ["Prediction", "UserError", "VideoModel", "create_model", "load_config", "load_model", "predict"]
