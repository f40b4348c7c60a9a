"""LoRA on CPU: each token gets its own adapter's part, whatever else is in the batch."""

import pytest

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("adapters", [[1] * 6, [0] * 6, [1, 1, 3, 0, 3, 0], [2, 3, 1, 4, 1, 2]])
@pytest.mark.parametrize("outputs", [[12], [8, 4, 4]])
def test_each_token_gets_its_own_adapters_part(adapters: list[int], outputs: list[int]) -> None:
    """Adapter 0 is the base alone: in a mixed batch vLLM's own operators give it the part of the last slot."""
    import torch
    from vllm.lora.layers.utils import LoRAMapping

    from rollout_server.engines.vllm_lora import SortedLora

    draw = torch.Generator().manual_seed(0)
    slots, rank, inputs = 4, 3, 10
    a = [torch.randn(slots, 1, rank, inputs, generator=draw) for _ in outputs]
    b = [torch.randn(slots, 1, width, rank, generator=draw) for width in outputs]
    x = torch.randn(len(adapters), inputs, generator=draw)
    y = torch.randn(len(adapters), sum(outputs), generator=draw)
    expected = y.clone()
    for row, adapter in enumerate(adapters):
        if adapter:
            parts = [0.5 * b[i][adapter - 1, 0] @ (a[i][adapter - 1, 0] @ x[row]) for i in range(len(outputs))]
            expected[row] += torch.cat(parts)
    wrapper = SortedLora(64, 8, "cpu", max_loras=slots)
    mapping = LoRAMapping(tuple(adapters), tuple(adapters), is_prefill=True)
    wrapper.update_metadata(mapping, [1, 2, 3, 4], slots, 100)
    wrapper.add_lora_linear(y, x, tuple(a), tuple(b), 0.5, tuple(outputs))
    torch.testing.assert_close(y, expected)
