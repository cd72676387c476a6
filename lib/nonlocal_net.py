"""The door for other Python programs, with `lib` on their path.

    from nonlocal_net import load_config, load_model, predict

    cfg = load_config("configs/F.yaml", ["MODEL.VIDEO_ARC_CHOICE", "2", "TRAIN.VIDEO_LENGTH", "8"])
    model = load_model(cfg, "weights.pkl")
    probabilities = predict(model, "x.mp4")

Everything here lives elsewhere; see lib/README.md for where.
"""

from core.config import load_config
from engine.prediction import load_model, predict
from models.model_builder_video import create_model

__all__ = ["create_model", "load_config", "load_model", "predict"]
