"""A matrix product in the layout that is fastest where it runs; knows nothing of models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE, SEVERAL = 1024, 4  # from this many columns and rows on, a packed copy pays on the CPU
SMALL = 64 << 20  # bytes of the largest matrix that is held twice for it


class Linear:
    """x -> x W^T + b for x [N, in] and W [out, in]; on the CPU W is kept transposed.

    A product with few rows is up to twice as fast that way round on the CPUs measured.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.transposed = weight.device.type == "cpu"
        self.weight = weight.t().contiguous() if self.transposed else weight.contiguous()
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if not self.transposed:
            return F.linear(x, self.weight, self.bias)
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


class PackedLinear(Linear):
    """For wide fp32 matrices on the CPU: several rows run over a copy packed for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 8)

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) < SEVERAL:
            return super().__call__(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The kind of Linear that is fastest for this matrix."""
    wide = weight.shape[0] >= WIDE and weight.numel() * weight.element_size() <= SMALL
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return PackedLinear(weight, bias) if wide and plain and _can_pack() else Linear(weight, bias)


def _can_pack() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
