"""A linear layer with its LoRA pair, in fewer passes over memory than peft makes."""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.nn import functional as F

ADAPTER = "default"
"""peft's name for the one adapter of a model."""


class FusedLora(Linear):  # type: ignore[misc]
    """Computes y = x Wᵀ + (s x Aᵀ) Bᵀ as peft does (Hu et al. 2021, eq. 3), with the second product added into the
    first: peft makes it apart, multiplies all of it by s, and adds that, which each take a pass over [tokens, outputs]
    there and back."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., inputs] → [..., outputs]."""
        a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        mixed = x.dtype != a.dtype and not torch.is_autocast_enabled(x.device.type)
        if self.disable_adapters or mixed:
            apart: Tensor = super().forward(x, *args, **kwargs)
            return apart
        rows = x.flatten(0, -2)
        y: Tensor = self.base_layer(rows)  # not of x: to add into a view of it costs the backward pass two copies
        shrunk = F.linear(rows, a) * self.scaling[ADAPTER]
        return y.addmm_(shrunk.to(y.dtype), b.T.to(y.dtype)).view(*x.shape[:-1], -1)
