"""Attention maps: the affinity, where cells lie in the clip, the pictures, tools/visualize_attention.py."""

import re

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from video_files import moving_square, write_video

import visualize_attention
from core.config import load_config
from engine import attention as attention_program
from formats.blobs import load_blobs, model_blobs
from formats.caffe2_pickle import dump
from models.attention_maps import attention_weights, entropy, key_window, most_selective, nonlocal_blocks
from models.model_builder_video import create_model
from models.nonlocal_helper import NonLocalBlock
from models.receptive_field import Grid, input_grid
from reports.attention_pictures import GAP, Attention, draw_clip, write_movie

# --------------------------------------------------------------------------------------------------- the affinity


def make_block(**options):
    torch.manual_seed(0)
    block = NonLocalBlock(6, 3, **options)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    return block.eval()


BLOCKS = {
    "softmax": {}, "dot product": {"affinity": "dot_product"}, "no scale": {"use_scale": False},
    "no pooling": {"use_maxpool": False}, "grouped": {"grouped": True},
    "grouped dot product": {"grouped": True, "affinity": "dot_product"}, "no bias": {"bias": False},
    "gaussian": {"affinity": "gaussian"}, "concatenation": {"affinity": "concatenation"},
    "space": {"reach": "space"}, "time": {"reach": "time", "affinity": "concatenation"},
}


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
def test_affinity_makes_the_output_of_the_block(options):
    block, x = make_block(**options), torch.randn(2, 6, 8, 5, 7, generator=torch.manual_seed(1))
    weights = attention_weights(block, x)
    pooled = nn.functional.max_pool3d(x, key_window(block)[0])
    assert weights.shape == (2, 8 * 5 * 7, pooled[0, 0].numel())
    g = block.g(pooled).flatten(2).transpose(1, 2)
    y = (weights @ g).transpose(1, 2).reshape(2, 3, *x.shape[2:])
    torch.testing.assert_close(x + block.out(y), block(x), rtol=1e-4, atol=1e-5)
    rows = torch.tensor([0, 279, 35])
    torch.testing.assert_close(attention_weights(block, x, rows), weights[:, rows])


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
def test_affinity_is_that_of_the_formula(options):
    """Position by position in numpy float64: paper section 3.2."""
    block, x = make_block(**options), torch.randn(1, 6, 8, 4, 3, generator=torch.manual_seed(2))
    weights = attention_weights(block, x)[0].detach().numpy()

    def embed(convolution, vector):
        bias = 0 if convolution.bias is None else convolution.bias.detach().double().numpy()
        return convolution.weight.detach().double().numpy()[:, :, 0, 0, 0] @ vector + bias

    kind, reach = options.get("affinity", "embedded_gaussian"), options.get("reach", "spacetime")
    values = x[0].double().numpy()
    side = 2 if block.use_maxpool else 1
    weight_f = block.f.weight.detach().double().numpy().ravel() if kind == "concatenation" else None
    keys = [(t, (h, w), values[:, t, side * h:side * h + side, side * w:side * w + side].max((1, 2)))
            for t in range(8) for h in range(4 // side) for w in range(3 // side)]
    for i, (t, h, w) in enumerate(np.ndindex(8, 4, 3)):
        query = values[:, t, h, w]
        reached = [j for j, (time, place, _) in enumerate(keys)
                   if (not block.grouped or time // 4 == t // 4)
                   and (reach != "space" or time == t) and (reach != "time" or place == (h, w))]
        if kind == "gaussian":
            products = np.array([query @ keys[j][2] for j in reached])
        elif kind == "concatenation":
            pairs = [[*embed(block.theta, query), *embed(block.phi, keys[j][2])] for j in reached]
            products = np.maximum(np.array(pairs) @ weight_f, 0)
        else:
            products = np.array([embed(block.theta, query) @ embed(block.phi, keys[j][2]) for j in reached])
        if kind in ("gaussian", "embedded_gaussian"):
            depth = 6 if kind == "gaussian" else 3
            powers = np.exp(products / np.sqrt(depth) if options.get("use_scale", True) else products)
            expected = powers / powers.sum()
        else:
            expected = products / len(reached)
        np.testing.assert_allclose(weights[i, reached], expected, rtol=1e-4, atol=1e-6)
        assert np.delete(weights[i], reached).tolist() == [0] * (len(keys) - len(reached))


def test_entropy_and_the_most_selective_positions():
    weights = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [3, -1, 3, 0], [-1, -1, 0, -2]]])
    torch.testing.assert_close(entropy(weights), torch.tensor([[np.log(4), 0, np.log(2), np.inf]]).float())
    block, x = make_block(), torch.randn(1, 6, 3, 8, 12, generator=torch.manual_seed(3))
    spread = entropy(attention_weights(block, x))[0].reshape(3, 8, 12)
    cells = most_selective(block, x, 4)
    assert len(cells) == 4
    assert spread[cells[0]] == spread.min()
    for i, cell in enumerate(cells[1:], start=1):
        assert all(abs(cell[1] - row) >= 2 or abs(cell[2] - column) >= 3 for _, row, column in cells[:i])
        far = [value for place, value in np.ndenumerate(spread.detach().numpy())
               if all(abs(place[1] - row) >= 2 or abs(place[2] - column) >= 3 for _, row, column in cells[:i])]
        assert spread[cell] == min(far)


# ------------------------------------------------------------------------------------------- where the cells lie


def influence(model, block, clip_shape, cell):
    """d(a cell of the block's input) / d(clip), summed over channels, with means in place of maxima, no ReLU and
    positive weights: so all that a cell sees counts. L x H x W."""
    def without(module):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool3d):
                setattr(module, name, nn.AvgPool3d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, (nn.BatchNorm3d, nn.ReLU, NonLocalBlock)):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv3d):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
            without(child)

    before = model.trunk[:model.trunk.index(block)]
    without(model)
    clip = torch.zeros(1, 3, *clip_shape, requires_grad=True)
    nn.Sequential(*(getattr(model, name) for name in before))(clip)[0, 0][cell].backward()
    return clip.grad[0].sum(0).double().numpy()


# The clips are so large that what the cell sees is inside.
@pytest.mark.parametrize(("name", "arc", "block", "clip_shape", "cell"), [
    ("resnet_video", 1, "nonlocal_conv3_1", (4, 100, 84), (1, 7, 5)),
    ("resnet_video", 1, "nonlocal_conv4_1", (2, 200, 210), (0, 6, 6)),
    ("resnet_video", 2, "nonlocal_conv3_1", (24, 84, 84), (5, 5, 5)),
    ("resnet_video_org", 1, "nonlocal_conv3_3", (24, 112, 120), (1, 7, 8)),
    ("resnet_video_org", 2, "nonlocal_conv3_1", (64, 84, 84), (4, 5, 5)),
])
def test_what_influences_a_cell_lies_round_its_centre(name, arc, block, clip_shape, cell):
    model = tiny_model(MODEL__MODEL_NAME=name, MODEL__VIDEO_ARC_CHOICE=arc, NONLOCAL__LAYER_MOD=2)
    grid = input_grid(model, block)
    gradient = influence(model, block, clip_shape, cell)
    for axis, (centre, extent) in enumerate(zip(grid.centres(cell), grid.extent, strict=True)):
        profile = gradient.sum(tuple({0, 1, 2} - {axis}))
        seen = np.flatnonzero(profile)
        assert (seen[0] + seen[-1]) / 2 == centre
        # conv1 of C2D and a stride pass frames over: what a cell sees has gaps, but an extent all the same.
        assert seen[-1] - seen[0] + 1 == extent
        part = profile[seen[0]:seen[-1] + 1]
        np.testing.assert_allclose(part, part[::-1], rtol=1e-3, atol=1e-6 * part.max())


def test_keys_lie_between_the_cells_that_they_pool():
    grid = input_grid(tiny_model(), "nonlocal_conv4_3")
    assert (grid.first, grid.step) == ((0.5, 2, 2), (2, 16, 16))
    keys = grid.through(*key_window(make_block()))
    np.testing.assert_array_equal(keys.centres((1, 2, 3)), np.mean([
        grid.centres((1, h, w)) for h in (4, 5) for w in (6, 7)], 0))
    assert grid.through(*key_window(make_block(use_maxpool=False))) == grid


def test_the_nearest_cell_of_a_position():
    grid = Grid((0.5, 2, 2), (2, 8, 8))
    for cell in np.ndindex(2, 3, 4):
        assert grid.nearest(grid.centres(cell), (2, 3, 4)) == cell
        assert grid.nearest(grid.centres(cell) + (0.9, -3.9, 3.9), (2, 3, 4)) == cell
    assert grid.nearest((99, 0, 99), (2, 3, 4)) == (1, 0, 3)


# --------------------------------------------------------------------------------------------------- the pictures


@pytest.fixture
def attention():
    """Three time steps of two frames, 4 x 5 positions: from step 1 to a few."""
    weights = np.zeros((3, 4, 5), np.float32)
    weights[2, 1, 3], weights[0, 3, 0], weights[1, 2, 2], weights[2, 0, 0] = 0.5, 0.3, 0.2, -1
    return Attention((2.5, 30.0, 50.0), weights, (0.5, 6, 6), (2, 16, 16), 20)


def test_which_positions_are_marked(attention):
    positions, steps, weights = attention.strongest()
    assert positions.tolist() == [[4.5, 22, 54], [0.5, 54, 6], [2.5, 38, 38]]
    assert steps.tolist() == [2, 0, 1]
    assert weights.tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert attention.middle_frames().tolist() == [0, 2, 4]
    assert [attention.time_step(frame) for frame in range(7)] == [0, 0, 1, 1, 2, 2, 2]


def test_the_heat_map_has_the_weights_at_their_positions(attention):
    heat = attention.heat(2, 70, 90)
    for h, w in np.ndindex(4, 5):
        assert heat[6 + 16 * h, 6 + 16 * w] == attention.weights[2, h, w]
    assert heat[22, 62] == pytest.approx(0.25)  # half way to a position of weight 0
    assert heat[0, 0] == heat[6, 6] == -1  # nothing is farther out


@pytest.fixture
def clip():
    return np.full((6, 70, 90, 3), 64, np.uint8)


def test_arrows_lead_from_the_point_to_the_positions(attention, clip, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("reports.attention_pictures.plt.close", figures.append)
    draw_clip(tmp_path / "a.png", clip, [f"frame {8 * i}" for i in range(6)], [attention], "title", "arrows")
    axes = figures[0].axes[0]
    arrows = {(text.xy, text.xyann) for text in axes.texts if hasattr(text, "arrow_patch") and text.arrow_patch}
    start = (50 + 90 + GAP, 30)
    assert arrows == {((54 + 2 * (90 + GAP), 22), start), ((6, 54), start), ((38 + 90 + GAP, 38), start)}
    assert [text.get_text() for text in axes.texts][:3] == ["frame 0", "frame 16", "frame 32"]
    assert "from frame 16, row 30, column 50: the 3 strongest of 60 positions have 100.0 %" in axes.get_title()
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 700


def test_every_style_makes_another_picture(attention, clip, tmp_path):
    pictures = {}
    for style in ("arrows", "heatmap", "both"):
        draw_clip(tmp_path / f"{style}.png", clip, list("abcdef"), [attention, attention], "title", style)
        pictures[style] = cv2.imread(str(tmp_path / f"{style}.png"))
    shapes = {picture.shape for picture in pictures.values()}
    assert len(shapes) == 1 and len({picture.tobytes() for picture in pictures.values()}) == 3


def test_the_movie_marks_the_positions_in_their_frames(attention, clip, tmp_path):
    write_movie(tmp_path / "a.mp4", clip, list("abcdef"), [attention, attention], "arrows")
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    frames = [capture.read()[1] for _ in range(6)]
    assert not capture.read()[0]
    scale = frames[0].shape[0] // 70
    assert frames[0].shape == (70 * scale, 2 * 90 * scale, 3)

    def is_marked(frame, row, column):
        for left in (0, 90 * scale):  # the two pictures are alike
            blue, green, red = frame[int((row + 0.5) * scale), left + int((column + 0.5) * scale)].astype(int)
            yield red > blue + 60

    for i, frame in enumerate(frames):
        for (_, row, column), step in zip(*attention.strongest()[:2], strict=True):
            assert list(is_marked(frame, row, column)) == [step == i // 2] * 2


# ------------------------------------------------------------------------------------------------------- the tool


OPTIONS = {"MODEL.MODEL_NAME": "resnet_video", "MODEL.NUM_CLASSES": 3, "MODEL.VIDEO_ARC_CHOICE": 2,
           "RESNETS.WIDTH_PER_GROUP": 2, "RESNETS.STEM_OUT_CHANNELS": 8, "NONLOCAL.LAYER_MOD": 4,
           "TRAIN.VIDEO_LENGTH": 4, "TRAIN.SAMPLE_RATE": 2,
           "TRAIN.JITTER_SCALES": "[200,240]", "TEST.SCALE": 200}


def words(**options):
    options = OPTIONS | {name.replace("__", "."): value for name, value in options.items()}
    return [str(word) for pair in options.items() for word in pair]


def tiny_model(**options):
    return create_model(load_config(None, words(**options)), "test")


def save(model, path):
    dump({name: blob.detach().numpy() for name, blob in model_blobs(model).items()}, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video, and weights whose attention is far from uniform."""
    folder = tmp_path_factory.mktemp("attention")
    write_video(folder / "video.mp4", moving_square(20, 80, 96, seed=1))
    model = tiny_model()
    with torch.no_grad():
        for name in nonlocal_blocks(model):
            getattr(model, name).theta.weight.mul_(3000)
    save(model, folder / "w.pkl")
    return folder


def visualize(call_tool, folder, *more, video="video.mp4", weights="w.pkl", **options):
    """The tool's status and what it wrote, without the line of the options that the weights gave."""
    options = {"TEST.PARAMS_FILE": folder / weights} | options
    status, output, errors = call_tool(visualize_attention, "--video", folder / video, "--output", folder / "out",
                                       *more, *words(**options))
    told = f"Options from {folder / weights}: MODEL.VIDEO_ARC_CHOICE 2 "
    assert status or errors.startswith(told)
    return status, output, re.sub(f"^{re.escape(told)}.*\n", "", errors)


def test_the_tool_shows_the_affinity_of_the_block(folder, call_tool, monkeypatch):
    drawn = []
    draw = attention_program.draw_clip
    monkeypatch.setattr(attention_program, "draw_clip", lambda *args: [drawn.append(args), draw(*args)])
    status, output, errors = visualize(call_tool, folder, "--clips", 2, "--block", "nonlocal_conv3_3",
                                       "--position", "1,130,20", "--position", "3,0,199")
    assert (status, errors) == (0, "")
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        f"video_nonlocal_conv3_3_clip{i}.{suffix}" for i in range(2) for suffix in ("mp4", "png")]
    assert "frames 10 to 16\n  --position 0,130,18: entropy " in output

    # By another way: the trunk up to the block, and the formula.
    _, clip, names, attentions, _, _ = drawn[1]
    assert names == ["frame 10", "frame 12", "frame 14", "frame 16"]
    model = tiny_model()
    blobs = load_blobs(folder / "w.pkl")
    block = model.nonlocal_conv3_3
    with torch.no_grad():
        block.theta.weight.copy_(torch.from_numpy(blobs["nonlocal_conv3_3_theta_w"]))
        x = torch.from_numpy((clip.transpose(3, 0, 1, 2)[None] - np.float32(114.75)) / np.float32(57.375))
        for name in model.trunk[:model.trunk.index("nonlocal_conv3_3")]:
            x = getattr(model, name)(x)
        theta, phi = block.theta(x)[0], block.phi(nn.functional.max_pool3d(x, (1, 2, 2)))[0]
    for attention, cell in zip(attentions, ((0, 16, 2), (1, 0, 24)), strict=True):
        assert attention.query == (0.5 + 2 * cell[0], 2 + 8 * cell[1], 2 + 8 * cell[2])
        products = np.einsum("d,dthw->thw", theta[(slice(None), *cell)].numpy(), phi.numpy()) / len(theta) ** 0.5
        powers = np.exp(products - products.max())
        np.testing.assert_allclose(attention.weights, powers / powers.sum(), rtol=1e-3, atol=1e-7)
        assert attention.weights.max() > 1.5 / attention.weights.size  # not uniform
        positions = attention.strongest()[0]
        t, h, w = np.unravel_index(powers.argmax(), powers.shape)
        assert positions[0].tolist() == [0.5 + 2 * t, 6 + 16 * h, 6 + 16 * w]


def test_points_are_chosen_without_position(folder, call_tool):
    status, output, errors = visualize(call_tool, folder, "--number", 2, "--style", "arrows")
    assert (status, errors) == (0, "")
    assert output.startswith(f"{folder}/out/video_nonlocal_conv4_3_clip0.png, .mp4: ")
    assert output.count("--position ") == 2
    spread = [float(line.split("entropy ")[1].split()[0]) for line in output.splitlines()[1:]]
    assert spread == sorted(spread)


def test_the_dot_product_and_the_grouped_form(folder, call_tool, monkeypatch):
    drawn = []
    monkeypatch.setattr(attention_program, "draw_clip", lambda *args: drawn.append(args))
    options = {"TRAIN__VIDEO_LENGTH": 16, "TRAIN__SAMPLE_RATE": 1, "MODEL__USE_AFFINE": True}
    save(tiny_model(**options), folder / "affine.pkl")
    status, _, errors = visualize(call_tool, folder, "--block", "nonlocal_conv3_3", "--position", "9,100,100",
                                  weights="affine.pkl", NONLOCAL__USE_SOFTMAX=False, **options)
    assert (status, errors) == (0, "")
    [attention] = drawn[0][3]
    assert attention.weights.shape == (8, 12, 12)
    reached = np.abs(attention.weights).sum((1, 2)) > 0
    assert reached.tolist() == [False] * 4 + [True] * 4  # frame 9 is of step 4: of the second group


def test_mistakes_are_one_line(folder, call_tool):
    def check(message, *more, **options):
        status, output, errors = visualize(call_tool, folder, *more, **options)
        assert (status, output) == (1, "")
        assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors, errors

    check("TEST.PARAMS_FILE is not set", TEST__PARAMS_FILE="")
    check("--block: expected one of nonlocal_conv3_3, nonlocal_conv4_3, got 'res4_3'", "--block", "res4_3")
    check("the network has no non-local block", NONLOCAL__CONV3_NONLOCAL=False, NONLOCAL__CONV4_NONLOCAL=False)
    check("the block nonlocal_conv4_5 is not in it", NONLOCAL__LAYER_MOD=2)
    check("gone.mp4: No such file or directory", video="gone.mp4")
    check("w.pkl: is not a video that FFmpeg can read", video="w.pkl")
    check("expected FRAME,ROW,COLUMN in 0..3,0..199,0..199 (the clip as the network sees it), got 4,0,0",
          "--position", "4,0,0")
    check("--arrows: expected a number of at least 1, got 0", "--arrows", 0)
    status, _, errors = visualize(call_tool, folder, "--position", "1,2")
    assert status == 2 and "expected FRAME,ROW,COLUMN such as 0,120,88, got '1,2'" in errors
