"""The non-local block (paper section 3) and its grouped form for long clips."""

from torch import Tensor, nn

from models.affinities import affinity_class, flatten_positions
from models.attention_spans import span_of
from models.convolution import Conv3d
from models.pooling import MaxPool3d


class NonLocalBlock(nn.Module):
    """z = x + norm(W_out y), y_i = sum_j f(x_i, x_j) g(x_j) / C(x): paper equations 1 and 6.

    Args:
        channels: channels C of input and output.
        inner: channels D of theta, phi and g (the paper's bottleneck: C / 2).
        norm: the layer `bn` after the output convolution (batch norm or frozen affine), or None for none.
        affinity: key of affinities.AFFINITIES. It determines which layers there are besides g, out and bn.
        use_maxpool: subsample x by 2 x 2 in space for phi and g (paper section 3.3), where the span covers space.
        use_scale: scale the softmax forms by the number of compared channels ** -0.5.
        bias: whether theta, phi, g and out have one.
        grouped: attend within groups of 4 successive frames instead of the whole clip.
        reach: key of attention_spans.SPANS.

    Input and output: N x C x T x H x W. With `grouped`, T must be a multiple of 4 (UserError).

    Raises:
        UserError: unknown affinity or reach.
    """

    def __init__(self, channels: int, inner: int, norm: nn.Module | None = None, affinity: str = "embedded_gaussian",
                 use_maxpool: bool = True, use_scale: bool = True, bias: bool = True, grouped: bool = False,
                 reach: str = "spacetime") -> None:
        super().__init__()
        self.grouped = grouped
        self.affinity = affinity_class(affinity)(channels, inner, use_scale)
        self.span = span_of(reach, grouped)
        self.use_maxpool = use_maxpool and self.span.covers_space
        self.max_pool = MaxPool3d((1, 2, 2))
        for name, layer in self.affinity.make_layers(bias).items():
            self.add_module(name, layer)
        self.g = Conv3d(channels, inner, 1, bias=bias)
        self.out = Conv3d(inner, channels, 1, bias=bias)
        self.bn = norm if norm is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.span.apply(self.attend, x)

    def attend(self, x: Tensor) -> Tensor:
        """z where all positions of x attend to each other."""
        t, h, w = x.shape[2:]
        pooled = self.pool(x)
        theta, phi = self.affinity.embed(self, x, pooled)
        y = self.affinity.attend(self, theta, phi, flatten_positions(self.g(pooled)))
        y = y.unflatten(1, (t, h, w)).permute(0, 4, 1, 2, 3)
        return x + self.bn(self.out(y))

    def pool(self, x: Tensor) -> Tensor:
        """The map of the positions that are attended to: N x C x T x H/2 x W/2 with max pooling, else x itself."""
        return self.max_pool(x) if self.use_maxpool else x
