"""Every affinity with every attention span, in everything that looks inside a non-local block."""

import copy
import functools
import itertools
import os

import pytest
import reference_recipe as recipe
import torch
from test_models import clips, tiny
from torch import nn

from formats.blobs import model_blobs
from formats.state_dict_file import load_state_dict, write_state_dict
from models.affinities import AFFINITIES, EmbeddedGaussian, flatten_positions
from models.attention_maps import attention_weights, block_input, entropy, most_selective
from models.attention_spans import SPANS
from models.complexity import count_operations
from models.export import largest_difference, read_torch_program, write_torch_program
from models.features import blob_places, blob_shapes, blob_values
from models.inference import for_inference
from models.nonlocal_helper import NonLocalBlock
from utils.checkpoints import initialize_params_from_file, save_checkpoint
from utils.errors import UserError

CASES = {f"{affinity}-{reach}{'-grouped' * grouped}": (affinity, reach, grouped)
         for affinity, reach, grouped in itertools.product(AFFINITIES, SPANS, [False, True])
         if not grouped or reach == "spacetime"}
# Each affinity, and each span: where one does not ask for the other. NLNET_ALL_KINDS=1 takes all of their pairs.
FEW = {name: case for name, case in CASES.items()
       if os.environ.get("NLNET_ALL_KINDS") or case[0] == "concatenation" or case[1:] == ("spacetime", False)}
BLOCK = "nonlocal_conv3_0"


def frames_for(grouped):
    """Frames of a clip: half of them are left in res3, of which groups take four each."""
    return 16 if grouped else 4


def shape_for(grouped):
    return 3, frames_for(grouped), 200, 200


@torch.inference_mode(False)
def make_network(affinity, reach, grouped, seed=1):
    """A narrow network with one block in res3, whose blobs all matter. Frozen affine layers come with groups."""
    model = tiny("test", RESNETS__WIDTH_PER_GROUP=2, NONLOCAL__AFFINITY=affinity, NONLOCAL__REACH=reach,
                 NONLOCAL__AFTER=f"['{BLOCK.replace('nonlocal_conv', 'res')}']", MODEL__USE_AFFINE=grouped,
                 NONLOCAL__USE_BN=not grouped)
    recipe.fill(model, seed, {"^nonlocal.*_w": 0.3, "branch2c_bn_s": 0.5})
    return model


network = functools.cache(make_network)  # for all tests; not to be changed


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


@torch.inference_mode()
def test_blobs_are_found_and_the_attention_matrix_makes_the_output(case):
    affinity, _, grouped = case
    model = network(*case)
    block, x = getattr(model, BLOCK), clips(frames_for(grouped), 200, 200)
    names = list(blob_places(model))
    parts = {name.removeprefix(f"{BLOCK}_") for name in names if name.startswith(BLOCK)}
    assert ("theta" in parts, "phi" in parts) == 2 * (affinity != "gaussian",)
    assert {"g", "out", "y"} <= parts and "f" not in parts
    shapes = blob_shapes(model, shape_for(grouped), names)
    values = blob_values(model, x, names)
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == shapes

    entering = block_input(model, BLOCK, x)
    assert torch.equal(values["res3_0"], entering) and torch.equal(values[BLOCK], block(entering))
    block, entering = copy.deepcopy(block).double(), entering.double()
    weights = attention_weights(block, entering)
    y = (weights @ flatten_positions(block.g(block.pool(entering)))).transpose(1, 2).unflatten(2, entering.shape[2:])
    torch.testing.assert_close(entering + block.bn(block.out(y)), block(entering))
    assert len(most_selective(block, entering, 2)) > 0 and (entropy(weights) >= 0).all()


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
@torch.inference_mode()
def test_the_transformed_network_predicts_the_same(case):
    model, x = network(*case), clips(frames_for(case[2]), 200, 200)
    torch.testing.assert_close(for_inference(model)(x), model(x), rtol=0, atol=1e-5)


# A span has no weights.
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_weights_survive_both_kinds_of_file(affinity, grouped, tmp_path):
    case = (affinity, "spacetime", grouped)
    model = network(*case)
    history = {name: torch.zeros(1) for name in model_blobs(model)}
    save_checkpoint(tmp_path / "w.pkl", model, history, 0.1, 1)
    write_state_dict(model, tmp_path / "w.pth")
    for load, path in ((initialize_params_from_file, "w.pkl"), (load_state_dict, "w.pth")):
        other = make_network(*case, seed=2)
        load(other, tmp_path / path)
        read = model_blobs(other)
        assert all(torch.equal(blob, read[name]) for name, blob in model_blobs(model).items())
    layers = {name.split(".")[1] for name in model.state_dict() if name.startswith(BLOCK)}
    assert layers - {"g", "out", "bn"} == {
        "gaussian": set(), "concatenation": {"theta", "phi", "f"}}.get(case[0], {"theta", "phi"})


@functools.cache
def operations_without_blocks(shape):
    bare = tiny("test", RESNETS__WIDTH_PER_GROUP=2, NONLOCAL__CONV3_NONLOCAL=False, NONLOCAL__CONV4_NONLOCAL=False)
    return count_operations(bare, shape)[0]


def test_operations_are_those_of_the_pairs_that_attend(case):
    """Counted from the mask of the pairs, where it is dense."""
    affinity, _, grouped = case
    model = network(*case)
    block, channels, inner = getattr(model, BLOCK), 64, 32
    x = torch.empty(1, channels, frames_for(grouped) // 2, 25, 25, device="meta")
    shape, key_shape = x.shape[2:], block.pool(x).shape[2:]
    pairs = int(block.span.attended(torch.arange(shape.numel()), shape, key_shape).sum())
    f = {"gaussian": channels, "concatenation": 1}.get(affinity, inner)
    embeddings = 0 if affinity == "gaussian" else 1
    convolutions = channels * inner * ((1 + embeddings) * shape.numel() + (1 + embeddings) * key_shape.numel())
    expected = pairs * (f + inner) + convolutions
    if grouped and block.span.count_parts(*shape) == 2:
        expected //= 2  # of two groups one counts, as in the legacy program
    assert count_operations(model, shape_for(grouped))[0] - operations_without_blocks(shape_for(grouped)) == expected


@pytest.mark.parametrize("case", FEW.values(), ids=FEW)
def test_affinities_can_be_exported(case, tmp_path):
    """A block alone; test_export_model has whole networks."""
    torch.manual_seed(0)
    affinity, reach, grouped = case
    block = NonLocalBlock(8, 4, affinity=affinity, reach=reach, grouped=grouped).eval()
    shape = (8, 8, 6, 6)
    x = torch.randn(2, *shape)
    write_torch_program(block, x, tmp_path / "m.pt2")
    found = read_torch_program(tmp_path / "m.pt2")
    assert not torch.equal(block(x), x)
    assert largest_difference(block, found, shape, (3,)) <= 1e-5


class Cosine(EmbeddedGaussian):
    """An affinity with one embedding, of a name that nothing else knows."""

    embeddings = ("shared",)

    def make_layers(self, bias):
        return {"shared": nn.Conv3d(self.channels, 7, 1, bias=bias)}

    def embed(self, block, x, pooled):
        return tuple(nn.functional.normalize(flatten_positions(block.shared(value)), dim=2) for value in (x, pooled))


@pytest.mark.parametrize("affinity", ["embedded_gaussian", "gaussian"])
@pytest.mark.parametrize("products", [False, True])
def test_bfloat16_attention_as_products(affinity, products, monkeypatch):
    """By the fused kernel or by two products: within the rounding of bfloat16 of the exact attention."""
    monkeypatch.setattr("models.precision.CPU_HAS_FAST_BFLOAT16", products)
    torch.manual_seed(0)
    form = AFFINITIES[affinity](16, 8)
    theta, phi, g = (torch.randn(2, n, 8).bfloat16() for n in (30, 20, 20))
    fused = []
    attention = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention",
                        lambda *args, **kwargs: fused.append(1) or attention(*args, **kwargs))
    with torch.inference_mode():
        y = form.attend(nn.Module(), theta, phi, g)
    assert len(fused) == (not products) and y.dtype == torch.bfloat16
    exact = form.matrix(nn.Module(), theta.double(), phi.double(), torch.ones(30, 20, dtype=torch.bool)) @ g.double()
    assert (y - exact).abs().max() <= 2**-7 * exact.abs().max()
    form.attend(nn.Module(), theta, phi, g)  # training: the fused kernel
    assert len(fused) == 1 + (not products)


def test_a_new_affinity_needs_an_entry_in_the_table_and_nothing_else(monkeypatch):
    monkeypatch.setitem(AFFINITIES, "cosine", Cosine)
    case = ("cosine", "spacetime", True)
    model, x = network(*case), clips(16, 200, 200)
    assert f"{BLOCK}_shared_w" in model_blobs(model)
    test_the_transformed_network_predicts_the_same(case)
    with torch.inference_mode():
        assert blob_values(model, x, [f"{BLOCK}_shared"])[f"{BLOCK}_shared"].shape[:3] == (1, 2, 7)
        weights = attention_weights(getattr(model, BLOCK), block_input(model, BLOCK, x))
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 8 * 25 * 25))
    operations = count_operations(model, shape_for(True))[0]
    with_embeddings = count_operations(network("embedded_gaussian", "spacetime", True), shape_for(True))[0]
    assert 0 < operations < with_embeddings


def test_an_unknown_affinity_or_span_is_never_the_softmax():
    with pytest.raises(UserError, match="NONLOCAL.AFFINITY: expected one of gaussian, .*, got 'softmax'"):
        NonLocalBlock(8, 4, affinity="softmax")
    with pytest.raises(UserError, match="NONLOCAL.REACH: expected one of spacetime, space, time, got 'frame'"):
        NonLocalBlock(8, 4, reach="frame")
