"""Intermediate blobs of a network, by the names and with the values that they have in the Caffe2 program.

There, operations in place leave a name with its last value: `<block>_branch2a_bn` is after the ReLU, and
`<block>_branch2c_bn` is the block's output.
"""

import contextlib
import copy
import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nonlocal_helper import NonLocalBlock
from models.resnet_helper import Bottleneck
from models.resnet_video import ResNetVideo
from utils.errors import UserError


@dataclass(frozen=True)
class BlobPlace:
    """Where a forward pass has the value of a blob: output of a module, or its input.

    is_embedding: whether the blob is a map N x D x T x H x W whose positions the Caffe2 program flattens.
    """

    module: nn.Module
    is_output: bool = True
    is_embedding: bool = False


def blob_places(model: ResNetVideo) -> dict[str, BlobPlace]:
    """Places of all blobs of a network by name.

    Besides the Caffe2 program's names, a block's own name (res5_2, nonlocal_conv4_5) stands for its output.
    """
    places: dict[str, BlobPlace] = {}
    for name in model.trunk:
        module = getattr(model, name)
        if isinstance(module, Bottleneck):
            places |= _bottleneck_places(name, module)
        elif isinstance(module, NonLocalBlock):
            places |= _nonlocal_places(name, module)
        else:
            places["res_conv1_bn" if name == "conv1_relu" else name] = BlobPlace(module)
    places |= {"pool5": BlobPlace(model.pool5), "pred": BlobPlace(model.pred)}
    return places | ({"softmax": BlobPlace(model)} if model.output == "softmax" else {})


def _bottleneck_places(name, block):
    # The output of a ReLU is the input of the next convolution.
    places = {"branch2a": BlobPlace(block.branch2a), "branch2a_bn": BlobPlace(block.branch2b, is_output=False),
              "branch2b": BlobPlace(block.branch2b), "branch2b_bn": BlobPlace(block.branch2c, is_output=False),
              "branch2c": BlobPlace(block.branch2c), "branch2c_bn": BlobPlace(block)}
    if block.has_projection:
        places |= {"branch1": BlobPlace(block.branch1), "branch1_bn": BlobPlace(block.branch1_bn)}
    return {f"{name}_{part}": place for part, place in places.items()} | {name: BlobPlace(block)}


def _nonlocal_places(name, block):
    places = {part: BlobPlace(getattr(block, part), is_embedding=True) for part in (*block.affinity.embeddings, "g")}
    places |= {"out": BlobPlace(block.out), "y": BlobPlace(block.out, is_output=False)}
    if block.use_maxpool:
        places["pool"] = BlobPlace(block.g, is_output=False)
    if list(block.bn.parameters()) or list(block.bn.buffers()):
        places["bn"] = BlobPlace(block.bn)
    # The Caffe2 program names a grouped block's sum after the two transpositions that undo the grouping.
    places["sum_trans_trans" if block.grouped else "sum"] = BlobPlace(block)
    return {f"{name}_{part}": place for part, place in places.items()} | {name: BlobPlace(block)}


def check_blob_names(model: ResNetVideo, names: Collection[str], source: str = "blob") -> None:
    """Raise UserError for a blob that is named twice or that the network does not have, listing similar names.

    source: what names them, for the message.
    """
    known = list(blob_places(model))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or ["pool5", "res5_2"]
            raise UserError(f"{source} {name!r}: not in this network; near ones: {', '.join(near)}")
    if len(set(names)) < len(names):
        raise UserError(f"blobs: expected each once, got {' '.join(names)}")


def blob_values(model: ResNetVideo, clips: Tensor, names: Collection[str], pool: bool = False) -> dict[str, Tensor]:
    """Values of blobs in a forward pass.

    Args:
        model: the network in inference mode; there is a blob `softmax` if that is its output.
        clips: N x 3 x T x H x W float32, normalised.
        names: blobs, keys of blob_places().
        pool: average over all positions in time and space.

    Returns:
        {name: tensor}, N first: N x C x T x H x W; theta, phi and g of non-local blocks N x D x positions; all inside
        a block whose attention span is less than the clip N x parts x ...; pool5 and pred N x C x 1 x h x w over the
        positions of the fully convolutional test; softmax N x K, averaged over them. With `pool` all are N x C.
    """
    places = blob_places(model)
    seen: dict[str, Tensor] = {}

    def keep(name):
        def hook(_, inputs, output):
            seen[name] = output if places[name].is_output else inputs[0]

        return hook

    with contextlib.ExitStack() as stack:
        for name in {*names, "pool5"}:
            stack.callback(places[name].module.register_forward_hook(keep(name)).remove)
        model(clips)
    positions = seen["pool5"].shape[2:]
    if "pred" in names:
        seen["pred"] = seen["pred"].transpose(1, 2).unflatten(2, positions)
    return {name: _as_rows(seen[name].flatten(2) if places[name].is_embedding else seen[name], len(clips), pool)
            for name in names}


def _as_rows(value, number, pool):
    if pool and value.dim() > 2:
        value = value.flatten(2).mean(2)
    if len(value) != number:
        value = value.unflatten(0, (number, -1))
        if pool:
            value = value.mean(1)
    return value


class BlobNetwork(nn.Module):
    """A network in inference mode whose output is one of its blobs: N x the elements of the blob, in its order.

    Args:
        model: the network, with output `softmax`.
        name: a key of blob_places().
    """

    def __init__(self, model: ResNetVideo, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, clips: Tensor) -> Tensor:
        return blob_values(self.model, clips, [self.name])[self.name].flatten(1)

    def size(self, clip_shape: tuple[int, ...]) -> int:
        """Number of elements for one clip of clip_shape (3, T, H, W)."""
        return math.prod(blob_shapes(self.model, clip_shape, [self.name])[self.name])


@torch.no_grad()
def blob_shapes(model: ResNetVideo, clip_shape: tuple[int, ...], names: Collection[str],
                pool: bool = False) -> dict[str, tuple[int, ...]]:
    """{name: shape of one clip's value} for clips of clip_shape (3, T, H, W), without computing any values."""
    meta = copy.deepcopy(model).to("meta")
    values = blob_values(meta, torch.empty(1, *clip_shape, device="meta"), names, pool)
    return {name: tuple(value.shape[1:]) for name, value in values.items()}
