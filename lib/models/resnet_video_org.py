"""The paper's network for 32 or 128 densely sampled frames: time is halved twice more, in conv1 and pool1."""

from functools import partial

from models.resnet_video import ResNetVideo

ResNetVideoOrg = partial(ResNetVideo, conv1_temporal_stride=2, pool1_temporal=2)
