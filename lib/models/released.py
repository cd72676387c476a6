"""The models that the authors released, trained on Kinetics-400: what each file is, and what they measured with it."""

from dataclasses import dataclass

LINK = "https://dl.fbaipublicfiles.com/video-nonlocal/"


@dataclass(frozen=True)
class ReleasedModel:
    """A row of the tables of the README.

    Attributes:
        name: of the file, without `.pkl`.
        script: the one that trains it, in scripts/, without `.sh`.
        top1, top5: published accuracy in percent, tested with 10 clips x 3 crops of 256 x 256.
        in_paper: the paper's top1, where it has this model.
        log: name of the released log, where it is not the file's.
    """

    name: str
    script: str
    top1: float
    top5: float
    in_paper: float | None = None
    log: str = ""

    @property
    def link(self) -> str:
        return f"{LINK}{self.name}.pkl"

    @property
    def log_link(self) -> str:
        return f"{LINK}{self.log or self.name}.log"


RELEASED = {model.name: model for model in (
    ReleasedModel("c2d_baseline_32x2_IN_pretrain_400k", "run_c2d_baseline_400k_32f", 72.0, 90.0, 71.8),
    ReleasedModel("c2d_nonlocal_32x2_IN_pretrain_400k", "run_c2d_nlnet_400k_32f", 73.9, 91.0, 73.8),
    ReleasedModel("i3d_baseline_32x2_IN_pretrain_400k", "run_i3d_baseline_400k_32f", 73.6, 90.8, 73.3),
    ReleasedModel("i3d_nonlocal_32x2_IN_pretrain_400k", "run_i3d_nlnet_400k_32f", 74.9, 91.6, 74.9),
    ReleasedModel("i3d_baseline_128x1_I3D_pretrain_400k", "run_i3d_baseline_affine_400k_128f", 75.2, 92.0, 74.9),
    ReleasedModel("i3d_nonlocal_128x1_I3D_pretrain_400k", "run_i3d_nlnet_affine_400k_128f", 76.5, 92.7, 76.5),
    ReleasedModel("c2d_baseline_8x8_IN_pretrain_400k", "run_c2d_baseline_400k", 71.9, 90.0),
    ReleasedModel("c2d_nonlocal_8x8_IN_pretrain_400k", "run_c2d_nlnet_400k", 74.4, 91.4),
    ReleasedModel("i3d_baseline_8x8_IN_pretrain_400k", "run_i3d_baseline_400k", 73.4, 90.9,
                  log="i3d_baesline_8x8_IN_pretrain_400k"),
    ReleasedModel("i3d_nonlocal_8x8_IN_pretrain_400k", "run_i3d_nlnet_400k", 74.7, 91.6),
    ReleasedModel("i3d_baseline_32x4_I3D_pretrain_400k", "run_i3d_baseline_affine_400k", 75.5, 92.0),
    ReleasedModel("i3d_nonlocal_32x4_I3D_pretrain_400k", "run_i3d_nlnet_affine_400k", 76.5, 92.6),
    ReleasedModel("i3d_baseline_8x8_IN_pretrain_300k", "run_i3d_baseline_300k", 73.2, 90.8),
    ReleasedModel("i3d_baseline_8x8_IN_pretrain_600k_4gpu", "run_i3d_baseline_600k_4gpu", 73.0, 90.4),
    ReleasedModel("i3d_baseline_8x8_IN_pretrain_300k_4gpu", "run_i3d_baseline_300k_4gpu", 72.0, 90.1),
)}  # fmt: skip
