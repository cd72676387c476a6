"""The non-local block (paper section 3) and its grouped form for long clips."""

import torch
from torch import nn
from torch.nn import functional as F

from utils.errors import UserError

# Long clips attend inside groups of this many successive frames.
FRAMES_PER_GROUP = 4


class NonLocalBlock(nn.Module):
    """z = x + norm(W_out y), y_i = sum_j f(x_i, x_j) g(x_j): paper equations 1 and 6.

    Args:
        channels: channels C of input and output.
        inner: channels D of theta, phi and g (the paper's bottleneck: C / 2).
        norm: the layer `bn` after the output convolution (batch norm or frozen affine), or None for none.
        use_maxpool: subsample x by 2 x 2 in space for phi and g (paper section 3.3).
        use_softmax: embedded Gaussian, softmax over j; otherwise the dot product divided by the number of j.
        use_scale: multiply the affinity by D ** -0.5 (softmax form only).
        bias: whether the four convolutions have one.
        grouped: attend inside groups of 4 successive frames, each on its own, with shared weights.

    Input and output: N x C x T x H x W. With `grouped`, T must be a multiple of 4 (UserError).
    """

    def __init__(self, channels, inner, norm=None, use_maxpool=True, use_softmax=True, use_scale=True, bias=True,
                 grouped=False):
        super().__init__()
        self.use_maxpool, self.use_softmax, self.use_scale, self.grouped = use_maxpool, use_softmax, use_scale, grouped
        self.theta = nn.Conv3d(channels, inner, 1, bias=bias)
        self.phi = nn.Conv3d(channels, inner, 1, bias=bias)
        self.g = nn.Conv3d(channels, inner, 1, bias=bias)
        self.out = nn.Conv3d(inner, channels, 1, bias=bias)
        self.bn = norm if norm is not None else nn.Identity()

    def forward(self, x):
        if not self.grouped:
            return self.attend(x)
        n, c, t, h, w = x.shape
        if t % FRAMES_PER_GROUP:
            raise UserError(f"grouped non-local blocks need a multiple of {FRAMES_PER_GROUP} frames, got {t}: "
                            "choose another TRAIN.VIDEO_LENGTH")
        # N x C x (groups * 4) x H x W -> (N * groups) x C x 4 x H x W: every group becomes a clip of its own.
        frames = x.transpose(1, 2).reshape(-1, FRAMES_PER_GROUP, c, h, w).transpose(1, 2)
        return self.attend(frames).transpose(1, 2).reshape(n, t, c, h, w).transpose(1, 2)

    def attend(self, x):
        n, _, t, h, w = x.shape
        pooled = F.max_pool3d(x, (1, 2, 2)) if self.use_maxpool else x
        theta = flatten_positions(self.theta(x))
        phi, g = flatten_positions(self.phi(pooled)), flatten_positions(self.g(pooled))
        y = softmax_attention(theta, phi, g, self.use_scale) if self.use_softmax else dot_product(theta, phi, g)
        y = y.reshape(n, t, h, w, -1).permute(0, 4, 1, 2, 3)
        return x + self.bn(self.out(y))


def flatten_positions(x):
    """N x D x T x H x W -> N x (T*H*W) x D."""
    return x.flatten(2).transpose(1, 2)


def softmax_attention(theta, phi, g, use_scale):
    """Embedded Gaussian: softmax over Q of theta phi^T, times g. theta: N x P x D; phi, g: N x Q x D -> N x P x D."""
    scale = theta.shape[-1] ** -0.5 if use_scale else 1.0
    return F.scaled_dot_product_attention(theta[:, None], phi[:, None], g[:, None], scale=scale)[:, 0]


def dot_product(theta, phi, g):
    """Dot product form: (theta phi^T / Q) g. theta: N x P x D; phi, g: N x Q x D -> N x P x D."""
    # (theta phi^T) g = theta (phi^T g): D x D in place of P x Q.
    return theta @ (phi.transpose(1, 2) @ g / torch.tensor(phi.shape[1], dtype=g.dtype))
