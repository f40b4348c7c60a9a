"""LoRA on CPU by two matrix products for each adapter in a batch.

vLLM's own operators copy an adapter's matrices for each token, which costs most of the tokens a second, at the rank of
full fine-tuning nearly all. They also take the last adapter's for tokens of the base model.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """Takes the place of vLLM's wrapper (`Platform.get_punica_wrapper`), for linear layers."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called when the adapters of a batch's tokens change."""
        super().update_metadata(*args, **kwargs)
        slots: list[int] = self.token_lora_indices.unique().tolist()
        self._groups: list[tuple[int, Tensor | slice]] = [
            (slot, slice(None) if len(slots) == 1 else (self.token_lora_indices == slot).nonzero().squeeze(1))
            for slot in slots
            if slot >= 0  # the others are the base model's
        ]

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Adds the adapters' part to `y`, in place.

        Args:
            y: (tokens, outputs).
            x: (tokens, inputs).
            lora_a_stacked: (slots, 1, rank, inputs), one for each of the layers that vLLM has fused into this one.
            lora_b_stacked: (slots, 1, outputs of that layer, rank).
            output_slices: the number of outputs of each layer.
        """
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._groups:
            own = x[rows].float()
            deltas = [
                (own @ a[slot, 0].float().T * scale).to(y.dtype) @ b[slot, 0].to(y.dtype).T
                for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True)
            ]
            y[rows, : sum(output_slices)] += deltas[0] if len(deltas) == 1 else torch.cat(deltas, dim=1)
