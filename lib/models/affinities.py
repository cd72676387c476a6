"""The pairwise function f of a non-local block and its normalisation (paper section 3.2).

Everything that depends on the kind of affinity is a method of its class here: the layers, the forward pass, the
attention matrix, the operation count. A new kind is a class and an entry in AFFINITIES.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import precision
from models.convolution import Conv3d
from utils.errors import UserError


class Affinity(ABC):
    """p_ij = f(x_i, x_j) / C(x), the weights of y_i = sum_j p_ij g(x_j).

    The layers belong to the block, under the names of the `.pkl` files; the methods get the block to find them there.

    Args:
        channels: channels C of the block's input.
        inner: channels D of its embeddings.
        use_scale: whether to scale what the softmax is taken of (NONLOCAL.USE_SCALE).
    """

    # Layers of make_layers() that run as modules, on x and pooled x. Others are used for their weights alone.
    embeddings: tuple[str, ...] = ("theta", "phi")

    def __init__(self, channels: int, inner: int, use_scale: bool = True) -> None:
        self.channels, self.inner, self.use_scale = channels, inner, use_scale

    def make_layers(self, bias: bool) -> dict[str, nn.Module]:
        """New layers of a block by name, in the order of its blobs."""
        return {name: Conv3d(self.channels, self.inner, 1, bias=bias) for name in self.embeddings}

    def embed(self, block: nn.Module, x: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What f compares: theta N x P x E of x and phi N x Q x E of the pooled x, both N x C x T x H x W."""
        theta, phi = self.embeddings
        return (flatten_positions(block.get_submodule(theta)(x)),
                flatten_positions(block.get_submodule(phi)(pooled)))

    @abstractmethod
    def attend(self, block: nn.Module, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """y, N x P x D, where every position attends to all Q. theta, phi: see embed(); g: N x Q x D."""

    @abstractmethod
    def matrix(self, block: nn.Module, theta: Tensor, phi: Tensor, attended: Tensor) -> Tensor:
        """The weights p, N x P x Q, zero where the mask `attended` (P x Q) is False. Slower than attend()."""

    @property
    def operations_per_pair(self) -> int:
        """Multiply-adds of f for one pair of positions."""
        return self.inner


class EmbeddedGaussian(Affinity):
    """f = exp(theta(x_i)^T phi(x_j)), C = sum_j f: a softmax over the positions attended to (paper equation 3)."""

    def attend(self, block: nn.Module, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        if prefers_products(theta):
            # Clip by clip, as the matrices of all would take much memory.
            return torch.stack([(queries @ keys.T * self._scale(theta)).softmax(1) @ values
                                for queries, keys, values in zip(theta, phi, g, strict=True)])
        return F.scaled_dot_product_attention(theta[:, None], phi[:, None], g[:, None], scale=self._scale(theta))[:, 0]

    def matrix(self, block: nn.Module, theta: Tensor, phi: Tensor, attended: Tensor) -> Tensor:
        products = theta @ phi.transpose(1, 2) * self._scale(theta)
        return products.masked_fill(~attended, -torch.inf).softmax(2)

    def _scale(self, theta: Tensor) -> float:
        return theta.shape[2] ** -0.5 if self.use_scale else 1.0


class Gaussian(EmbeddedGaussian):
    """f = exp(x_i^T x_j) (paper equation 2): the softmax form without embeddings."""

    embeddings = ()

    def embed(self, block: nn.Module, x: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return flatten_positions(x), flatten_positions(pooled)

    @property
    def operations_per_pair(self) -> int:
        return self.channels


class DotProduct(Affinity):
    """f = theta(x_i)^T phi(x_j), C = the number of positions attended to (paper equation 4). Never scaled."""

    def attend(self, block: nn.Module, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        # (theta phi^T) g = theta (phi^T g): D x D in place of P x Q.
        return theta @ (phi.transpose(1, 2) @ g / torch.tensor(phi.shape[1], dtype=g.dtype))

    def matrix(self, block: nn.Module, theta: Tensor, phi: Tensor, attended: Tensor) -> Tensor:
        return _divided_by_count(theta @ phi.transpose(1, 2), attended)


class Concatenation(Affinity):
    """f = ReLU(w_f^T [theta(x_i), phi(x_j)]), C = the number of positions attended to (paper equation 5).

    w_f is the weight of the layer `f`, 2D long. Never scaled.
    """

    def make_layers(self, bias: bool) -> dict[str, nn.Module]:
        return {**super().make_layers(bias), "f": Conv3d(2 * self.inner, 1, 1, bias=False)}

    def attend(self, block: nn.Module, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return self._pairwise(block, theta, phi) @ g / phi.shape[1]

    def matrix(self, block: nn.Module, theta: Tensor, phi: Tensor, attended: Tensor) -> Tensor:
        return _divided_by_count(self._pairwise(block, theta, phi), attended)

    def _pairwise(self, block: nn.Module, theta: Tensor, phi: Tensor) -> Tensor:
        of_theta, of_phi = block.get_parameter("f.weight").flatten().to(theta.dtype).chunk(2)
        return F.relu((theta @ of_theta)[:, :, None] + (phi @ of_phi)[:, None, :])

    @property
    def operations_per_pair(self) -> int:
        return 1  # w_f is applied to each position once, not to each pair


# NONLOCAL.AFFINITY
AFFINITIES: dict[str, type[Affinity]] = {
    "gaussian": Gaussian,
    "embedded_gaussian": EmbeddedGaussian,
    "dot_product": DotProduct,
    "concatenation": Concatenation,
}


def affinity_class(name: str) -> type[Affinity]:
    """The class listed in AFFINITIES under a name. Raises UserError for any other name."""
    if name not in AFFINITIES:
        raise UserError(f"NONLOCAL.AFFINITY: expected one of {', '.join(AFFINITIES)}, got {name!r}")
    return AFFINITIES[name]


def prefers_products(theta: Tensor) -> bool:
    """Whether softmax attention is better computed as two matrix products than by PyTorch's fused kernel.

    So it is where a CPU has fast products in bfloat16, which the fused kernel does not reach (measured with AVX-512:
    118 to 177 against 280 to 323 GFLOP/s). In training, the fused kernel saves the memory of the P x Q matrix.
    """
    return (theta.device.type == "cpu" and theta.dtype == torch.bfloat16 and not torch.is_grad_enabled()
            and precision.CPU_HAS_FAST_BFLOAT16)


def flatten_positions(x: Tensor) -> Tensor:
    """N x D x T x H x W -> N x (T*H*W) x D."""
    return x.flatten(2).transpose(1, 2)


def _divided_by_count(values: Tensor, attended: Tensor) -> Tensor:
    return values.masked_fill(~attended, 0) / attended.sum(1, keepdim=True)
