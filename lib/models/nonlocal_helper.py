"""The non-local block (paper section 3) and its grouped form for long clips."""

import torch
from torch import nn
from torch.nn import functional as F

from utils.errors import UserError

# Long clips attend inside groups of this many successive frames.
FRAMES_PER_GROUP = 4


# f(x_i, x_j) of paper section 3.2. The softmax of the first two makes them the normalised Gaussian.
AFFINITIES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")

# Which positions a position takes in: all of the clip, those of its frame, those of its place (paper table 2d).
REACHES = ("spacetime", "space", "time")


class NonLocalBlock(nn.Module):
    """z = x + norm(W_out y), y_i = sum_j f(x_i, x_j) g(x_j) / C(x): paper equations 1 and 6.

    Args:
        channels: channels C of input and output.
        inner: channels D of theta, phi and g (the paper's bottleneck: C / 2).
        norm: the layer `bn` after the output convolution (batch norm or frozen affine), or None for none.
        affinity: one of AFFINITIES. 'gaussian' has no theta and phi; 'concatenation' has their weights w_f as `f`.
        use_maxpool: subsample x by 2 x 2 in space for phi and g (paper section 3.3). Not done where only time counts.
        use_scale: multiply what the softmax is taken of by its number of channels ** -0.5.
        bias: whether theta, phi, g and out have one.
        grouped: attend inside groups of 4 successive frames, each on its own, with shared weights.
        reach: one of REACHES.

    Input and output: N x C x T x H x W. With `grouped`, T must be a multiple of 4 (UserError).
    """

    def __init__(self, channels, inner, norm=None, affinity="embedded_gaussian", use_maxpool=True, use_scale=True,
                 bias=True, grouped=False, reach="spacetime"):
        super().__init__()
        self.inner, self.affinity, self.reach = inner, affinity, reach
        self.use_scale, self.grouped = use_scale, grouped
        self.use_maxpool = use_maxpool and reach != "time"
        if affinity != "gaussian":
            self.theta = nn.Conv3d(channels, inner, 1, bias=bias)
            self.phi = nn.Conv3d(channels, inner, 1, bias=bias)
        if affinity == "concatenation":
            self.f = nn.Conv3d(2 * inner, 1, 1, bias=False)
        self.g = nn.Conv3d(channels, inner, 1, bias=bias)
        self.out = nn.Conv3d(inner, channels, 1, bias=bias)
        self.bn = norm if norm is not None else nn.Identity()

    def forward(self, x):
        n, c, t, h, w = x.shape
        if self.reach == "time":
            # Every place becomes a clip of one pixel.
            places = x.permute(0, 3, 4, 1, 2).reshape(n * h * w, c, t, 1, 1)
            return self.attend(places).reshape(n, h, w, c, t).permute(0, 3, 4, 1, 2)
        frames_per_group = 1 if self.reach == "space" else FRAMES_PER_GROUP if self.grouped else t
        if frames_per_group == t:
            return self.attend(x)
        if t % frames_per_group:
            raise UserError(f"grouped non-local blocks need a multiple of {FRAMES_PER_GROUP} frames, got {t}: "
                            "choose another TRAIN.VIDEO_LENGTH")
        # N x C x (groups * 4) x H x W -> (N * groups) x C x 4 x H x W: every group becomes a clip of its own.
        frames = x.transpose(1, 2).reshape(-1, frames_per_group, c, h, w).transpose(1, 2)
        return self.attend(frames).transpose(1, 2).reshape(n, t, c, h, w).transpose(1, 2)

    def attend(self, x):
        n, _, t, h, w = x.shape
        pooled = F.max_pool3d(x, (1, 2, 2)) if self.use_maxpool else x
        theta, phi = self.embed(x, pooled)
        g = flatten_positions(self.g(pooled))
        if self.affinity == "dot_product":
            y = dot_product(theta, phi, g)
        elif self.affinity == "concatenation":
            y = concatenation(theta, phi, g, self.f.weight)
        else:
            y = softmax_attention(theta, phi, g, self.use_scale)
        y = y.reshape(n, t, h, w, -1).permute(0, 4, 1, 2, 3)
        return x + self.bn(self.out(y))

    def embed(self, x, pooled):
        """What the affinity compares: N x P x D and N x Q x D; for 'gaussian' x itself, of C channels."""
        if self.affinity == "gaussian":
            return flatten_positions(x), flatten_positions(pooled)
        return flatten_positions(self.theta(x)), flatten_positions(self.phi(pooled))


def flatten_positions(x):
    """N x D x T x H x W -> N x (T*H*W) x D."""
    return x.flatten(2).transpose(1, 2)


def softmax_attention(theta, phi, g, use_scale):
    """(Embedded) Gaussian: softmax over Q of theta phi^T, times g. theta: N x P x E; phi: N x Q x E; g: N x Q x D.

    Returns N x P x D.
    """
    scale = theta.shape[-1] ** -0.5 if use_scale else 1.0
    return F.scaled_dot_product_attention(theta[:, None], phi[:, None], g[:, None], scale=scale)[:, 0]


def dot_product(theta, phi, g):
    """Dot product form: (theta phi^T / Q) g. theta: N x P x D; phi, g: N x Q x D -> N x P x D."""
    # (theta phi^T) g = theta (phi^T g): D x D in place of P x Q.
    return theta @ (phi.transpose(1, 2) @ g / torch.tensor(phi.shape[1], dtype=g.dtype))


def concatenation(theta, phi, g, weight):
    """ReLU(w_f [theta_i, phi_j]) / Q, times g (paper equation 5). theta: N x P x D; phi, g: N x Q x D; weight: 2 D.

    Returns N x P x D.
    """
    of_theta, of_phi = weight.flatten().to(theta.dtype).chunk(2)
    affinity = F.relu((theta @ of_theta)[:, :, None] + (phi @ of_phi)[:, None, :])
    return affinity @ g / phi.shape[1]
