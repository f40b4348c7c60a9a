"""What a policy computes of packed samples: attention within each, and log-probabilities under a frozen head.

Linear layers, norms and embeddings work on the N packed tokens. Attention alone knows samples: queries, keys and values
are spread to rows of whole samples for it, and what it gives is gathered again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

from rl.learner.collate import MiniBatch

PACKED = "packed"
"""The name that transformers knows this attention by."""
LOGITS = {"cpu": 2**22, "cuda": 2**27}
"""Elements of the logits that are there at a time, by device; a GPU is idle below some thousand tokens."""
SOFT_CAP = "attn_logit_softcapping"
SCALED = (SOFT_CAP, "final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings by which a model does more than attention, or more than its head does."""


def can_pack(model: PreTrainedModel) -> bool:
    """Whether all that mixes tokens in this model is attention that can be replaced, and its head gives its logits."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        model._supports_attention_backend
        and model._supports_sdpa
        and kinds <= {"full_attention", "sliding_attention"}
        and not any(getattr(config, name, None) for name in SCALED)
    )


def attend(
    module: nn.Module,
    query_1HND: Tensor,
    key_1HND: Tensor,
    value_1HND: Tensor,
    attention_mask: None,
    *,
    pack: MiniBatch,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, [1, N, H, D]: each token sees those of its sample up to itself."""
    b, length = pack.rows_BL.shape

    def spread(x_1HND: Tensor) -> Tensor:
        _, heads, n, depth = x_1HND.shape
        x_NF = x_1HND[0].transpose(0, 1).reshape(n, heads * depth)
        return x_NF.index_select(0, pack.rows_BL.flatten()).view(b, length, heads, depth).transpose(1, 2)

    # What lies behind a sample in its row is seen by nothing in it.
    window = None
    if sliding_window is not None and sliding_window < length:
        window = _window(length, sliding_window, query_1HND.device)
    out_BHLD = F.scaled_dot_product_attention(
        spread(query_1HND),
        spread(key_1HND),
        spread(value_1HND),
        attn_mask=window,
        is_causal=window is None,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query_1HND.shape[1] != key_1HND.shape[1],
    )
    out_PF = out_BHLD.transpose(1, 2).reshape(b * length, -1)
    return out_PF.index_select(0, pack.places_N).view(1, len(pack.places_N), *query_1HND.shape[1::2]), None


AttentionInterface.register(PACKED, attend)


def _window(length: int, width: int, device: torch.device) -> Tensor:
    """[L, L]: each place sees itself and the width − 1 before it."""
    back_LL = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (back_LL >= 0) & (back_LL < width)


def frozen_logprobs(
    hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, tokens_M: Tensor, temperature: float
) -> Tensor:
    """log softmax(hidden · Wᵀ / temperature) at the tokens, [M] in float32, for a head that is not trained.

    The logits of a few tokens are there at a time. The gradient of each log-probability to its hidden state,
    (W[token] − Σ softmax · W) / temperature, does not depend on the loss but by a factor: it is computed with them, and
    kept in their place.
    """
    logprobs_M: Tensor = _FrozenLogprobs.apply(hidden_MH, weight_VH, bias_V, tokens_M, temperature)  # type: ignore[no-untyped-call]
    return logprobs_M


class _FrozenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, tokens_M: Tensor, temperature: float
    ) -> Tensor:
        logprobs_M = torch.empty(len(hidden_MH), dtype=torch.float32, device=hidden_MH.device)
        grad_MH = torch.empty_like(hidden_MH) if ctx.needs_input_grad[0] else None
        at_once = max(1, LOGITS[hidden_MH.device.type] // len(weight_VH))
        for begin in range(0, len(hidden_MH), at_once):
            some = slice(begin, begin + at_once)
            tokens_C1 = tokens_M[some, None]
            logits_CV = F.linear(hidden_MH[some], weight_VH, bias_V).float()
            if temperature != 1:
                logits_CV /= temperature
            log_sum_C1 = logits_CV.logsumexp(1, keepdim=True)
            logprobs_M[some] = (logits_CV.gather(1, tokens_C1) - log_sum_C1)[:, 0]
            if grad_MH is not None:
                slope_CV = logits_CV.sub_(log_sum_C1).exp_().neg_()
                slope_CV.scatter_add_(1, tokens_C1, torch.ones_like(log_sum_C1))
                grad_MH[some] = slope_CV.to(weight_VH.dtype) @ weight_VH
        ctx.save_for_backward(grad_MH)
        ctx.temperature = temperature
        return logprobs_M

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad_MH,) = ctx.saved_tensors
        factor_M1 = grads[0][:, None] / ctx.temperature
        return (factor_M1 * grad_MH).to(grad_MH.dtype), None, None, None, None
