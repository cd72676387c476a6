"""Pictures of attention: where a point of a clip looks, as arrows (paper figure 3) or as a heat map."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from utils.errors import UserError
from utils.files import StrPath, atomic_write
from utils.visualize import as_label

matplotlib.use("Agg")  # files only: no display is needed

from matplotlib import colormaps, patheffects  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Normalize  # noqa: E402

STYLES = ("arrows", "heatmap", "both")
COLORS = colormaps["autumn"]  # red to yellow: both show on any frame
POINT_COLOR = (0, 255, 255)
PANELS_PER_LINE = 8
GAP = 6  # pixels between the panels
OPACITY = 0.6  # of the heat map where it is hottest
MOVIE_SIZE = 448  # pixels, about, of a frame's short side
FRAMES_PER_SECOND = 5


@dataclass(frozen=True)
class Attention:
    """Where one point of a clip looks. Positions are (frame, row, column); the centre of pixel i is at i.

    query: the point. weights: T x H x W, of the positions looked at. first, step: position [t, h, w] lies at
    first + step * (t, h, w). arrows: how many of the strongest to draw.
    """

    query: tuple
    weights: np.ndarray
    first: tuple
    step: tuple
    arrows: int

    def strongest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(positions (n x 3, floats), time steps (n), weights (n)) of the largest weights > 0, the largest first."""
        order = np.argsort(-self.weights, axis=None, kind="stable")[:self.arrows]
        order = order[self.weights.ravel()[order] > 0]
        cells = np.stack(np.unravel_index(order, self.weights.shape), 1)
        return cells * self.step + self.first, cells[:, 0], self.weights.ravel()[order]

    def middle_frames(self) -> np.ndarray:
        """(T,) integers: the frame of the clip in the middle of each time step; of two the earlier."""
        return np.ceil(np.arange(len(self.weights)) * self.step[0] + self.first[0] - 0.5).astype(int)

    def time_step(self, frame: float) -> int:
        """The time step whose middle is nearest to a frame; of two the earlier."""
        step = np.ceil((frame - self.first[0]) / self.step[0] - 0.5)
        return int(np.clip(step, 0, len(self.weights) - 1))

    def heat(self, t: int, height: int, width: int) -> np.ndarray:
        """The weights of time step t between their positions, bilinearly: height x width float32, a value a pixel.

        Outside the outermost positions it is the nearest value.
        """
        rows, columns = ((np.arange(size, dtype=np.float32) - first) / step for size, first, step in zip(
            (height, width), self.first[1:], self.step[1:], strict=True))
        columns, rows = np.meshgrid(columns, rows)
        return np.asarray(cv2.remap(self.weights[t].astype(np.float32), columns, rows, cv2.INTER_LINEAR,
                                    borderMode=cv2.BORDER_REPLICATE))

    def under_heat(self, frame: np.ndarray, t: int) -> np.ndarray:
        """An RGB uint8 frame under the heat map of time step t: more opaque where it is hotter."""
        top = self.weights.max()
        share = np.clip(self.heat(t, *frame.shape[:2]) / top, 0, 1) if top > 0 else np.zeros(frame.shape[:2])
        opacity = OPACITY * share[..., None]
        return (frame * (1 - opacity) + 255 * COLORS(share)[..., :3] * opacity).round().astype(np.uint8)


def draw_clip(path: StrPath, clip: np.ndarray, names: list[str], attentions: list[Attention], title: str,
              style: str) -> None:
    """Write a PNG: for each Attention the clip's time steps side by side, each by the frame in its middle.

    Args:
        path: the file; appears only when it is whole.
        clip: L x H x W x 3 uint8 RGB frames.
        names: L labels of the frames.
        attentions: a list of Attention.
        title: line over the picture.
        style: one of STYLES. Arrows lead from the point to the positions with the largest weights.
    """
    steps = len(attentions[0].weights)
    columns, lines = min(steps, PANELS_PER_LINE), -(-steps // PANELS_PER_LINE)
    side = max(2.3, 5.2 / columns)  # inches of a panel; the line over a row of them takes five
    figure, axes = plt.subplots(len(attentions), 1, squeeze=False, layout="constrained", figsize=(
        side * columns + 1.2, (side * clip.shape[1] / clip.shape[2] * lines + 0.4) * len(attentions) + 0.5))
    try:
        figure.suptitle(as_label(title, longest=150), fontsize=10)
        for axes_of_one, attention in zip(axes[:, 0], attentions, strict=True):
            _draw_panels(axes_of_one, clip, names, attention, style)
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=120)
    finally:
        plt.close(figure)


def _draw_panels(axes, clip, names, attention, style):
    height, width = clip.shape[1:3]
    frames = attention.middle_frames()
    corners = np.array([divmod(t, PANELS_PER_LINE) for t in range(len(frames))]) * (height + GAP, width + GAP)
    canvas = np.full((*(corners.max(0) + (height, width)), 3), 255, np.uint8)
    outline = [patheffects.withStroke(linewidth=2, foreground="black")]
    for t, (row, column) in enumerate(corners):
        panel = clip[frames[t]] if style == "arrows" else attention.under_heat(clip[frames[t]], t)
        canvas[row:row + height, column:column + width] = panel
        axes.text(column + 6, row + 6, names[frames[t]], color="white", fontsize=8, va="top", path_effects=outline)
    axes.imshow(canvas, interpolation="lanczos")
    axes.set_axis_off()

    def on_canvas(position, t):
        return position[2] + corners[t][1], position[1] + corners[t][0]

    here = attention.time_step(attention.query[0])
    start = on_canvas(attention.query, here)
    positions, steps, weights = attention.strongest()
    top, mean = attention.weights.max(), np.maximum(attention.weights, 0).mean()
    if style != "heatmap":
        # The strongest last, over the others.
        for position, t, weight in zip(positions[::-1], steps[::-1], weights[::-1], strict=True):
            axes.annotate("", on_canvas(position, t), start, annotation_clip=False, arrowprops={
                "arrowstyle": "-|>,head_length=0.35,head_width=0.18", "color": COLORS(weight / top), "shrinkA": 0,
                "shrinkB": 0, "linewidth": 0.6 + 1.2 * weight / top,
                "path_effects": [patheffects.withStroke(linewidth=2.4, foreground="black", alpha=0.5)]})
    # Over the arrows, which are of the order of texts.
    axes.plot(*start, "o", color=np.array(POINT_COLOR) / 255, markeredgecolor="black", markersize=7, zorder=5)
    share = weights.sum() / (mean * attention.weights.size) if mean > 0 else 0
    axes.set_title(f"from {names[frames[here]]}, row {attention.query[1]:g}, column {attention.query[2]:g}: "
                   f"the {len(weights)} strongest of {attention.weights.size} positions have {100 * share:.1f} % "
                   "of the weight", fontsize=8)
    if mean > 0:
        bar = axes.figure.colorbar(ScalarMappable(Normalize(0, top / mean), COLORS), ax=axes, fraction=0.02, pad=0.01)
        bar.set_label("weight / mean weight", fontsize=7)
        bar.ax.tick_params(labelsize=7)


def write_movie(path: StrPath, clip: np.ndarray, names: list[str], attentions: list[Attention], style: str) -> None:
    """Write an MP4 of all frames of a clip, for each Attention one picture side by side.

    Arguments as of draw_clip. A disc marks the point in the frames of its time step, a ring in the others; lines lead
    from it to dots at the strongest positions of the time step that the frame is of.
    """
    scale = max(1, round(MOVIE_SIZE / min(clip.shape[1:3])))
    with tempfile.TemporaryDirectory() as folder:
        made, writer = Path(folder) / "clip.mp4", None
        for number in range(len(clip)):
            frame = np.hstack([_movie_frame(number, clip, names, one, style, scale) for one in attentions])
            # MPEG-4 wants even sizes.
            height, width = (size // 2 * 2 for size in frame.shape[:2])
            if writer is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(made), cv2.CAP_FFMPEG, codec, FRAMES_PER_SECOND, (width, height))
                if not writer.isOpened():
                    raise UserError(f"{path}: OpenCV cannot write an MPEG-4 video here")
            writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
        if writer is not None:
            writer.release()
        with open(made, "rb") as source, atomic_write(path) as file:
            shutil.copyfileobj(source, file)


def _movie_frame(number, clip, names, attention, style, scale):
    frame, here, top = clip[number], attention.time_step(number), attention.weights.max()
    if style != "arrows":
        frame = attention.under_heat(frame, here)
    frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)

    def place(position):
        row, column = (round((float(x) + 0.5) * scale - 0.5) for x in position[1:])
        return column, row

    query = place(attention.query)
    if style != "heatmap":
        positions, steps, weights = (values[::-1] for values in attention.strongest())
        for position, weight in zip(positions[steps == here], weights[steps == here], strict=True):
            color = [round(255 * value) for value in COLORS(weight / top)[:3]]
            cv2.line(frame, query, place(position), color, 1, cv2.LINE_AA)
            cv2.circle(frame, place(position), 4, color, cv2.FILLED, cv2.LINE_AA)
    filled = attention.time_step(attention.query[0]) == here
    cv2.circle(frame, query, 7, POINT_COLOR, cv2.FILLED if filled else 2, cv2.LINE_AA)
    cv2.circle(frame, query, 9, (0, 0, 0), 1, cv2.LINE_AA)
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(frame, names[number], (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness, cv2.LINE_AA)
    return frame
