"""LoRA on CPU by two matrix products for each adapter in a batch.

vLLM's own operators copy an adapter's matrices for each token, which costs most of the tokens a second, at the rank of
full fine-tuning nearly all. They also take the last adapter's for tokens of the base model.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class SortedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """Takes the place of vLLM's wrapper (`Platform.get_punica_wrapper`), for linear layers.

    The tokens of a batch are sorted by adapter, so that those of one adapter are rows of one matrix. Only what adapters
    add to them is sorted, and goes back to them once: to sort `y` and put it back cost twice as much.
    """

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called when the adapters of a batch's tokens change."""
        super().update_metadata(*args, **kwargs)
        index: Tensor = self.token_lora_indices  # the adapter's slot for each token, negative for the base model
        adapted = index >= 0
        slots, counts = torch.unique(index[adapted], return_counts=True)
        bounds = pairwise(accumulate(counts.tolist(), initial=0))
        self._runs = [(slot, slice(*bound)) for slot, bound in zip(slots.tolist(), bounds, strict=True)]
        mixed = bool((index != index[:1]).any())
        self._order = index.argsort(stable=True)[int((~adapted).sum()) :] if mixed else None

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
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1]).float()
        columns = [slice(*bound) for bound in pairwise(accumulate(output_slices, initial=0))]
        layers = list(zip(lora_a_stacked, lora_b_stacked, columns, strict=True))
        if self._order is None:  # one adapter for all tokens, or none
            for slot, tokens in self._runs:
                for a, b, outputs in layers:
                    shrunk = x @ a[slot, 0].float().T
                    y[tokens, outputs].addmm_(shrunk.to(y.dtype), b[slot, 0].to(y.dtype).T, alpha=scale)
            return
        x = x.index_select(0, self._order)
        added = y.new_empty(len(x), y.shape[-1])
        for slot, tokens in self._runs:
            for a, b, outputs in layers:
                shrunk = x[tokens] @ a[slot, 0].float().T
                torch.mm(shrunk.to(y.dtype), b[slot, 0].to(y.dtype).T, out=added[tokens, outputs])
        y.index_add_(0, self._order, added, alpha=scale)
