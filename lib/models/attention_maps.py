"""What a non-local block attends to (paper section 3 and figure 3).

The block's forward pass need not form the attention matrix; here it is computed separately, from the block's input.
"""

import torch
from torch import Tensor

from models.nonlocal_helper import NonLocalBlock
from models.resnet_video import ResNetVideo

# Rows of the matrix that are held in memory at once.
ROWS = 512


def nonlocal_blocks(model: ResNetVideo) -> list[str]:
    """Names of the non-local blocks of a network, from input to output."""
    return [name for name in model.trunk if isinstance(getattr(model, name), NonLocalBlock)]


@torch.no_grad()
def block_input(model: ResNetVideo, name: str, clips: Tensor) -> Tensor:
    """Input x (N x C x T x H x W) of the non-local block `name` when the model is called with the clips."""
    caught: list[Tensor] = []
    # A copy, since later layers may work in place.
    hook = getattr(model, name).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].clone()))
    try:
        model(clips)
    finally:
        hook.remove()
    return caught[0]


def key_window(block: NonLocalBlock) -> tuple[tuple[int, ...], ...]:
    """(kernel, stride, padding) of the pooling from a block's input to the map of positions that it attends to."""
    side = 2 if block.use_maxpool else 1
    return (1, side, side), (1, side, side), (0, 0, 0)


@torch.no_grad()
def attention_weights(block: NonLocalBlock, x: Tensor, queries: Tensor | None = None) -> Tensor:
    """The weights p_ij with which position i takes in g(x_j): y_i = sum_j p_ij g(x_j), paper equation 1.

    Args:
        block: a NonLocalBlock.
        x: its input, N x C x T x H x W.
        queries: (R,) int64 tensor, which of the P = T*H*W positions (in that order); None: all of them.

    Returns:
        N x R x Q, for the Q positions after the pooling (key_window) in the same order: for the softmax forms,
        probabilities; for the others, f(x_i, x_j) divided by the number of positions that i attends to, of any sign
        for the dot product. Positions outside the block's attention span have weight 0.
    """
    pooled = block.pool(x)
    theta, phi = block.affinity.embed(block, x, pooled)
    if queries is None:
        queries = torch.arange(theta.shape[1], device=x.device)
    attended = block.span.attended(queries, x.shape[2:], pooled.shape[2:])
    return block.affinity.matrix(block, theta[:, queries], phi, attended)


def entropy(weights: Tensor) -> Tensor:
    """How widely attention is spread, in nats: N x R, from weights N x R x Q (see attention_weights).

    Only positive weights count (the dot product has others), relative to their sum; infinite where there are none.
    """
    positive = weights.clamp(min=0)
    total = positive.sum(2, keepdim=True)
    return torch.where(total[..., 0] > 0, torch.special.entr(positive / total).sum(2), torch.inf)


@torch.no_grad()
def most_selective(block: NonLocalBlock, x: Tensor, count: int) -> list[tuple[int, ...]]:
    """The positions (t, h, w) with the most concentrated attention, i.e. the smallest entropy, in that order.

    Neighbours of a position already chosen are skipped: those less than a quarter of the map away in both directions,
    in any frame. x is 1 x C x T x H x W. Returns at most `count` positions.
    """
    t, h, w = x.shape[2:]
    positions = torch.arange(t * h * w, device=x.device)
    spread = torch.cat([entropy(attention_weights(block, x, rows))[0] for rows in positions.split(ROWS)])
    spread = spread.reshape(t, h, w)
    chosen: list[tuple[int, ...]] = []
    while len(chosen) < count and torch.isfinite(spread).any():
        chosen.append(tuple(int(i) for i in torch.unravel_index(spread.argmin(), spread.shape)))
        _, row, column = chosen[-1]
        rows = (torch.arange(h, device=x.device) - row).abs() < h / 4
        columns = (torch.arange(w, device=x.device) - column).abs() < w / 4
        spread = spread.masked_fill(rows[:, None] & columns, torch.inf)
    return chosen
