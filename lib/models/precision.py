"""What MODEL.PRECISION means.

- float32: every product and sum in float32.
- tf32: float32, but on GPUs that have it convolutions and matrix products round their factors to 10 bits of mantissa
  (the sums stay float32). The same as float32 on a CPU.
- bfloat16: convolutions, matrix products and what lies between them in bfloat16, by autocast; weights, batch
  statistics, classifier, loss, gradients of weights and update stay float32.
"""

import contextlib
import os

import torch

# Whether this machine's CPU multiplies bfloat16 fast, which takes AVX-512. Elsewhere products in bfloat16 take many
# times as long as in float32.
CPU_HAS_FAST_BFLOAT16: bool = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def set_precision(precision: str) -> None:
    """Let this process's GPUs round the factors of float32 products (tf32, bfloat16) or not (float32)."""
    # Not `fp32_precision`: once that is set, reading the options below raises, and PyTorch itself reads them when it
    # compiles and in cudnn.flags(). These set both.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"


def leave_out_amx() -> None:
    """Keep oneDNN from using AMX in this process, unless ONEDNN_MAX_CPU_ISA is set.

    On CPUs with AMX the bfloat16 backward pass of some convolutions does not return within minutes (PyTorch 2.13).
    Only has an effect before the first operation that oneDNN computes.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context for forward passes in training mode on a torch.device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """The context for what is computed in the precision of its input, inside autocast too."""
    if device.type == "meta":  # has no autocast
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
