"""Max pooling in the precision of its input."""

from torch import Tensor, nn

from models.precision import no_autocast


class MaxPool3d(nn.MaxPool3d):
    """torch.nn.MaxPool3d, but bfloat16 stays bfloat16 under a CPU's autocast, which would make it float32."""

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            return super().forward(x)
