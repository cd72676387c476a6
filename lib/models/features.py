"""Intermediate blobs of a network, by the names and with the values that they have in the Caffe2 program.

There, operations in place leave a name with its last value: `<block>_branch2a_bn` is after the ReLU, and
`<block>_branch2c_bn` is the block's output.
"""

import contextlib
import copy
import difflib

import torch

from models.nonlocal_helper import NonLocalBlock
from models.resnet_helper import Bottleneck
from utils.errors import UserError


def blob_places(model):
    """{blob name: (module, whether it is the module's output, else its input)} of a ResNetVideo.

    Beside the Caffe2 program's names, a block's own name (res5_2, nonlocal_conv4_5) stands for its output.
    """
    places = {}
    for name in model.trunk:
        module = getattr(model, name)
        if isinstance(module, Bottleneck):
            places |= _bottleneck_places(name, module)
        elif isinstance(module, NonLocalBlock):
            places |= _nonlocal_places(name, module)
        else:
            places["res_conv1_bn" if name == "conv1_relu" else name] = (module, True)
    places |= {"pool5": (model.pool5, True), "pred": (model.pred, True)}
    return places | ({"softmax": (model, True)} if model.output == "softmax" else {})


def _bottleneck_places(name, block):
    # What a ReLU leaves is what the next convolution gets.
    places = {"branch2a": (block.branch2a, True), "branch2a_bn": (block.branch2b, False),
              "branch2b": (block.branch2b, True), "branch2b_bn": (block.branch2c, False),
              "branch2c": (block.branch2c, True), "branch2c_bn": (block, True)}
    if block.has_projection:
        places |= {"branch1": (block.branch1, True), "branch1_bn": (block.branch1_bn, True)}
    return {f"{name}_{part}": place for part, place in places.items()} | {name: (block, True)}


def _nonlocal_places(name, block):
    places = {part: (getattr(block, part), True) for part in ("theta", "phi", "g", "out")}
    places["y"] = (block.out, False)
    if block.use_maxpool:
        places["pool"] = (block.phi, False)
    if list(block.bn.parameters()) or list(block.bn.buffers()):
        places["bn"] = (block.bn, True)
    # With groups, the sum is named after the steps that take them apart again.
    places["sum_trans_trans" if block.grouped else "sum"] = (block, True)
    return {f"{name}_{part}": place for part, place in places.items()} | {name: (block, True)}


def check_blob_names(model, names):
    """Raise a UserError that lists near names for a blob that the network does not have, or that is there twice."""
    known = list(blob_places(model))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or ["pool5", "res5_2"]
            raise UserError(f"blob {name!r}: not in this network; near ones: {', '.join(near)}")
    if len(set(names)) < len(names):
        raise UserError(f"blobs: expected each once, got {' '.join(names)}")


def blob_values(model, clips, names, pool=False):
    """Values of blobs in a forward pass.

    Args:
        model: a ResNetVideo in inference mode; `softmax` is there if that is its output.
        clips: N x 3 x T x H x W float32, normalised.
        names: blobs, of blob_places.
        pool: average over all positions in time and space.

    Returns:
        {name: tensor}, N first: N x C x T x H x W; theta, phi and g of non-local blocks N x D x positions, all of a
        grouped block's N x groups x ...; pool5 and pred N x C x 1 x h x w over the positions of the fully
        convolutional test; softmax N x K, averaged over them. With `pool` all are N x C.
    """
    places, seen = blob_places(model), {}

    def keep(name):
        def hook(_, inputs, output):
            seen[name] = output if places[name][1] else inputs[0]

        return hook

    with contextlib.ExitStack() as stack:
        for name in {*names, "pool5"}:
            stack.callback(places[name][0].register_forward_hook(keep(name)).remove)
        model(clips)
    positions = seen["pool5"].shape[2:]
    return {name: _as_rows(name, seen[name], len(clips), positions, pool) for name in names}


def _as_rows(name, value, number, positions, pool):
    if name == "pred":
        value = value.transpose(1, 2).unflatten(2, positions)
    elif name.endswith(("_theta", "_phi", "_g")):
        value = value.flatten(2)
    if pool and value.dim() > 2:
        value = value.flatten(2).mean(2)
    if len(value) != number:
        value = value.unflatten(0, (number, -1))
        if pool:
            value = value.mean(1)
    return value


@torch.no_grad()
def blob_shapes(model, clip_shape, names, pool=False):
    """{name: shape of one clip's value} for clips of clip_shape (3, T, H, W), without computing anything."""
    meta = copy.deepcopy(model).to("meta")
    values = blob_values(meta, torch.empty(1, *clip_shape, device="meta"), names, pool)
    return {name: tuple(value.shape[1:]) for name, value in values.items()}
