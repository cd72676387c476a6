"""What a non-local block attends to (paper section 3 and figure 3).

The block's own forward pass keeps no affinity matrix; here it is computed beside it, from the block's input.
"""

import torch
from torch.nn import functional as F

from models.nonlocal_helper import FRAMES_PER_GROUP, NonLocalBlock

# Rows of the matrix that are held at once.
ROWS = 512


def nonlocal_blocks(model):
    """Names of the non-local blocks of a ResNetVideo, from input to output."""
    return [name for name in model.trunk if isinstance(getattr(model, name), NonLocalBlock)]


@torch.no_grad()
def block_input(model, name, clips):
    """x (N x C x T x H x W) that the non-local block `name` gets when the model is called with the clips."""
    caught = []
    # A copy: what comes later in the network may work in place.
    hook = getattr(model, name).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].clone()))
    try:
        model(clips)
    finally:
        hook.remove()
    return caught[0]


def key_window(block):
    """(kernel, stride, padding) of the pooling between the positions of a block's input and those it attends to."""
    side = 2 if block.use_maxpool else 1
    return (1, side, side), (1, side, side), (0, 0, 0)


@torch.no_grad()
def affinity(block, x, queries=None):
    """The weights p_ij with which position i takes in g(x_j): y_i = sum_j p_ij g(x_j), paper equation 1.

    Args:
        block: a NonLocalBlock.
        x: its input, N x C x T x H x W.
        queries: (R,) int64 tensor, which of the P = T*H*W positions (in that order); None: all of them.

    Returns:
        N x R x Q, for the Q positions after the pooling (key_window) in the same order: for the softmax forms,
        probabilities; for the others, f(x_i, x_j) divided by the number of positions that i attends to, of any sign
        for the dot product. Positions that i does not attend to (of other groups of frames, frames, places) have 0.
    """
    t, h, w = x.shape[2:]
    theta, phi = block.embed(x, F.max_pool3d(x, (1, 2, 2)) if block.use_maxpool else x)
    if queries is None:
        queries = torch.arange(theta.shape[1], device=x.device)
    theta, keys = theta[:, queries], torch.arange(phi.shape[1], device=x.device)
    keys_per_frame = len(keys) // t
    if block.reach == "time":
        foreign, reached = keys % (h * w) != (queries % (h * w))[:, None], t
    else:
        frames = 1 if block.reach == "space" else FRAMES_PER_GROUP if block.grouped else t
        foreign = keys // (keys_per_frame * frames) != (queries // (h * w * frames))[:, None]
        reached = keys_per_frame * frames
    if block.affinity == "concatenation":
        of_theta, of_phi = block.f.weight.flatten().chunk(2)
        products = F.relu((theta @ of_theta)[:, :, None] + (phi @ of_phi)[:, None, :])
    else:
        products = theta @ phi.transpose(1, 2)
    if block.affinity in ("dot_product", "concatenation"):
        return products.masked_fill(foreign, 0) / reached
    scale = theta.shape[2] ** -0.5 if block.use_scale else 1.0
    return (products * scale).masked_fill(foreign, -torch.inf).softmax(2)


def entropy(weights):
    """How spread attention is, in nats: of weights N x R x Q (see affinity), N x R.

    Of the dot product form's weights the positive ones count, relative to their sum; infinite where there is none.
    """
    positive = weights.clamp(min=0)
    total = positive.sum(2, keepdim=True)
    return torch.where(total[..., 0] > 0, torch.special.entr(positive / total).sum(2), torch.inf)


@torch.no_grad()
def most_selective(block, x, count):
    """The positions whose attention is the most concentrated, as tuples (t, h, w), the most so first.

    That is those of the smallest entropy, but for neighbours of one that is chosen already, in whatever frame: those
    less than a quarter of the map away, both ways. x is 1 x C x T x H x W; there may be fewer than `count`.
    """
    t, h, w = x.shape[2:]
    positions = torch.arange(t * h * w, device=x.device)
    spread = torch.cat([entropy(affinity(block, x, rows))[0] for rows in positions.split(ROWS)]).reshape(t, h, w)
    chosen = []
    while len(chosen) < count and torch.isfinite(spread).any():
        chosen.append(tuple(int(i) for i in torch.unravel_index(spread.argmin(), spread.shape)))
        _, row, column = chosen[-1]
        rows = (torch.arange(h, device=x.device) - row).abs() < h / 4
        columns = (torch.arange(w, device=x.device) - column).abs() < w / 4
        spread = spread.masked_fill(rows[:, None] & columns, torch.inf)
    return chosen
