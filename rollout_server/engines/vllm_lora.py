"""LoRA on CPU by two batched matrix products for all adapters in a batch.

vLLM's own operators copy an adapter's matrices for each token, which costs most of the tokens a second, at the rank of
full fine-tuning nearly all. They also take the last adapter's for tokens of the base model.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class BlockedLora(PunicaWrapperCPU):  # type: ignore[misc]
    """Takes the place of vLLM's wrapper (`Platform.get_punica_wrapper`), for linear layers.

    The tokens of a batch are laid out in blocks of one length, each with tokens of one adapter. The length is the mean
    number of tokens of an adapter, so that blocks are at most twice as many as adapters, and padding at most half.
    """

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called when the adapters of a batch's tokens change."""
        super().update_metadata(*args, **kwargs)
        index: Tensor = self.token_lora_indices
        self._base = (index < 0).nonzero().squeeze(1)
        slots, group, counts = index.clamp(min=0).unique(return_inverse=True, return_counts=True)
        self._slots: Tensor | slice = slots
        self._layout: Tensor | slice = slice(None)
        self._places: Tensor | slice = slice(None)
        if len(slots) == 1:  # nothing is to be copied
            self._slots = slice(int(slots), int(slots) + 1)
            return
        length = -(-len(index) // len(slots))
        blocks = -(-counts // length)
        group, order = group.sort(stable=True)
        within = torch.arange(len(index)) - (counts.cumsum(0) - counts)[group]
        places = torch.empty_like(order).scatter_(0, order, (blocks.cumsum(0) - blocks)[group] * length + within)
        self._slots = slots.repeat_interleave(blocks)
        self._layout = torch.zeros(len(self._slots) * length, dtype=torch.long)  # padded by the first token
        self._layout[places] = torch.arange(len(index))
        self._places = places

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
        deltas = []
        for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True):
            a, b = a[self._slots, 0], b[self._slots, 0]
            blocks = x[self._layout].view(len(a), -1, x.shape[-1])
            shrunk = torch.bmm(blocks.float(), a.float().mT).mul_(scale)
            deltas.append(torch.bmm(shrunk.to(y.dtype), b.to(y.dtype).mT))
        delta = torch.cat(deltas, dim=2) if len(deltas) > 1 else deltas[0]
        delta = delta.flatten(0, 1)[self._places]
        if len(self._base):
            delta[self._base] = 0
        y[:, : sum(output_slices)] += delta
