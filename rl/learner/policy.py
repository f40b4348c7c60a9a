"""The policy: a frozen base model with an adapter, and the log-probabilities it gives to completions."""

import json
from contextlib import AbstractContextManager, nullcontext

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rl.core.config import TrainConfig
from rl.core.errors import UsageError, first_line
from rl.learner.collate import SPREAD, MiniBatch
from rl.learner.full import make_full
from rl.learner.lora import FusedLora
from rl.learner.packed import PACKED, SOFT_CAP, can_pack, frozen_logprobs
from rl.problems.shapes import full_rank, lora_target_names, targeted
from rollout_server.schema import CONFIG_KEY

MICRO_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Tokens in one forward pass. On CPU what a layer computes then stays in the cache: 4,096 take 5 % longer."""
LOGITS_BYTES = 2**30
"""What the float32 logits of one forward pass may take where they are there all at once; its backward pass holds some
four times that."""


class Policy(nn.Module):
    """`forward` gives log-probabilities, so that DDP can wrap it.

    Args:
        model: folder of the base.
        config: its `seed` is that of the adapter's initial weights: A is random and B zero, so the policy begins as
            the base. Of full fine-tuning nothing is random.

    Raises:
        UsageError: the model cannot be loaded, or not with this attention, or `lora_target` names modules that the
            model does not have, or full fine-tuning needs a rank that cannot be served.
    """

    def __init__(self, model: str, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.dtype = base_dtype(config, device)
        self._temperature = config.temperature
        try:
            base = AutoModelForCausalLM.from_pretrained(
                model,
                dtype=self.dtype,
                attn_implementation=None if config.attention == "auto" else config.attention,
                trust_remote_code=config.trust_remote_code,
            ).to(device)
        except (OSError, ValueError, ImportError) as error:
            reason = first_line(error)
            fix = "take another --attention" if "ttention" in reason else "name one that transformers loads"
            raise UsageError(f"cannot load the model {model}: {reason}", fix=fix) from None
        if config.grad_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        self.packs = config.attention == "auto" and can_pack(base)
        if self.packs:
            base.set_attn_implementation(PACKED)
        elif config.attention == "auto" and getattr(base.config.get_text_config(), SOFT_CAP, None):
            base.set_attn_implementation("eager")  # the others leave the cap out
        most = MICRO_TOKENS[device.type]
        self.micro_tokens = config.micro_tokens or (most if self.packs else min(most, _that_fit(base)))
        """Tokens in one forward pass."""
        targeted(base, config.lora_target)  # whether they are there
        target = config.lora_target if config.lora_target == "all-linear" else lora_target_names(config.lora_target)
        full = config.tuning == "full"
        rank = full_rank(base, config.lora_target) if full else config.lora_rank
        torch.manual_seed(config.seed)
        lora = LoraConfig(
            r=rank, lora_alpha=rank if full else config.lora_alpha, target_modules=target, task_type="CAUSAL_LM"
        )
        lora._register_custom_module({nn.Linear: FusedLora})
        self.model: PeftModel = get_peft_model(base, lora)
        if full:
            make_full(self.model)
        self.model.train()

    def forward(self, batch: MiniBatch) -> Tensor:
        """Log-probabilities [B, T] of the completions under the sampling distribution; 0 where there is no token."""
        autocast = self.device.type == "cuda" and self.dtype == torch.bfloat16
        with torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext():
            logprobs_M = self._packed(batch) if self.packs else self._by_rows(batch)
        return torch.zeros(batch.mask_BT.shape, device=self.device).masked_scatter(batch.mask_BT, logprobs_M)

    def _packed(self, batch: MiniBatch) -> Tensor:
        base = self.model.get_base_model()
        hidden_1NH = base.get_decoder()(
            input_ids=batch.tokens_N[None], position_ids=batch.positions_N[None], use_cache=False, pack=batch
        ).last_hidden_state
        hidden_MH = hidden_1NH[0].index_select(0, batch.rows_BL.flatten()[batch.before_M])
        head = base.get_output_embeddings()
        return frozen_logprobs(hidden_MH, head.weight, head.bias, batch.completion_M, self._temperature)

    def _by_rows(self, batch: MiniBatch) -> Tensor:
        """As the model itself computes it; causal attention keeps what is behind a sample in its row out of it."""
        length = batch.rows_BL.shape[1]
        logits_BLV = self.model(
            input_ids=batch.tokens_N[batch.rows_BL],
            position_ids=torch.arange(length, device=self.device).expand_as(batch.rows_BL),
            use_cache=False,
        ).logits
        return token_logprobs(logits_BLV.flatten(0, 1)[batch.before_M], batch.completion_M, self._temperature)

    def adapter_off(self) -> AbstractContextManager[None]:
        """Inside, the policy is the base model: no second model is kept for the reference."""
        return self.model.disable_adapter()  # type: ignore[no-any-return]

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def adapter_modules(self) -> int:
        """Linear layers that have a LoRA pair."""
        return sum(name.endswith("lora_A.weight") for name in get_peft_model_state_dict(self.model))

    def adapter_bytes(self) -> bytes:
        """The adapter as one safetensors file with its configuration inside: what travels, and what is hashed."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in get_peft_model_state_dict(self.model).items()}
        return bytes(save(tensors, metadata={CONFIG_KEY: self.adapter_config()}))

    def adapter_config(self) -> str:
        """peft's configuration as JSON."""
        config = self.model.peft_config["default"].to_dict() | {"inference_mode": True}
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        return json.dumps(plain, default=str, sort_keys=True)

    def load_adapter(self, adapter: bytes) -> None:
        set_peft_model_state_dict(self.model, load(adapter))


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) at the tokens, in float32, for logits [..., V] and tokens [...].

    Example: logits (0, ln 3) at temperature 1 give the second token log(3/4) = −0.288.
    """
    logits = logits.float() / temperature
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _that_fit(base: PreTrainedModel) -> int:
    """Tokens whose rows have no more logits than may be there at once."""
    vocabulary: int = base.config.get_text_config().vocab_size
    return LOGITS_BYTES // (4 * vocabulary * SPREAD)


def base_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
