"""LoRA on CPU by two batched matrix products for all adapters in a batch.

vLLM's own operators copy an adapter's matrices for each token, which costs most of the tokens a second, at the rank of
full fine-tuning nearly all. They also take the last adapter's for tokens of the base model.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

Index = Tensor | slice


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
        slots, group, counts = torch.unique(index.clamp(min=0), return_inverse=True, return_counts=True)
        if len(slots) == 1:  # nothing is to be copied
            self._slots: Index = slice(int(slots), int(slots) + 1)
            self._layout: Index = slice(None)
            self._places: Index = slice(None)
            return
        length = -(-len(index) // len(slots))
        blocks = -(-counts // length)
        group, order = group.sort(stable=True)
        within = torch.arange(len(index)) - (counts.cumsum(0) - counts)[group]
        places = torch.empty_like(order)
        places[order] = (blocks.cumsum(0) - blocks)[group] * length + within
        layout = torch.zeros(int(blocks.sum()) * length, dtype=torch.long)  # padded by the first token
        layout[places] = torch.arange(len(index))
        self._slots, self._layout, self._places = slots.repeat_interleave(blocks), layout, places

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
        if len(self._base) == len(x):
            return
        tokens = _select(x, self._layout).float()
        deltas = []
        for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True):
            a, b = (_select(stacked, self._slots).squeeze(1) for stacked in (a, b))
            shrunk = torch.bmm(tokens.view(len(a), -1, x.shape[-1]), a.float().mT).mul_(scale)
            deltas.append(torch.bmm(shrunk.to(y.dtype), b.to(y.dtype).mT))
        delta = torch.cat(deltas, dim=2) if len(deltas) > 1 else deltas[0]
        delta = _select(delta.flatten(0, 1), self._places)
        if len(self._base):
            delta[self._base] = 0
        y[:, : sum(output_slices)] += delta


def _select(rows: Tensor, index: Index) -> Tensor:
    """`rows[index]`; indexing by a tensor takes three times as long."""
    return rows[index] if isinstance(index, slice) else rows.index_select(0, index)
