"""Loss, advantages and LoRA gradients agree with TRL's GRPOTrainer on the same tokens, to 2e-6.

TRL's loss has no public entry, so two private methods of the pinned release are called: `_compute_loss` and
`_generate_and_score_completions` (advantages, importance weights). A rollout function hands it fixed tokens in
place of generation. Our log-probs come from plain forwards, one unpadded completion at a time.
"""

import random
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rl.core.kinds import LOSS_DEFAULTS, AdvantageScale, ImportanceMode, LossKind
from rl.learner.advantage import group_advantages
from rl.learner.loss import importance_weights, policy_loss, token_weights

pytest.importorskip("trl", reason="the oracle: it is in the dev dependency group")

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
]

TOLERANCE = 2e-6
CAP = 1.5
GROUP, MAX_TOKENS = 4, 12
PROMPTS = ["1+2=", "33+44=", "7*8+9="]
REWARDS = [[0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.1], [0.0, 1.0, 1.0, 0.3]]  # the first has no signal
PROMPT_OF = [prompt for prompt in PROMPTS for _ in range(GROUP)]
_rng = random.Random(0)
COMPLETIONS = [[_rng.randint(3, 60) for _ in range(_rng.randint(2, MAX_TOKENS))] for _ in PROMPT_OF]
SAMPLER = [torch.tensor([_rng.uniform(-4.9, -3.6) for _ in tokens]) for tokens in COMPLETIONS]  # policy: −4.3
SAMPLER_BT = pad_sequence(SAMPLER, batch_first=True)
MASK_BT = pad_sequence([torch.ones(len(c), dtype=torch.bool) for c in COMPLETIONS], batch_first=True)


def make_model(path: Path) -> None:
    """A random Qwen2 of 0.1M parameters with a tokenizer of one token per character."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    words = [*special.values(), *string.digits, *"+-*= ", *string.ascii_letters]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocab),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One GRPOTrainer for all cases: its knobs are plain attributes."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    path = tmp_path_factory.mktemp("trl")
    make_model(path / "model")
    trainer = GRPOTrainer(
        model=str(path / "model"),
        args=GRPOConfig(
            output_dir=str(path / "out"),
            per_device_train_batch_size=len(PROMPT_OF),
            gradient_accumulation_steps=1,
            num_generations=GROUP,
            max_completion_length=MAX_TOKENS,
            beta=0.04,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
        reward_funcs=lambda completions, **_: [r for group in REWARDS for r in group],
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        rollout_func=lambda prompts, trainer: {
            "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": COMPLETIONS,
            "logprobs": [logprobs_T.tolist() for logprobs_T in SAMPLER],
        },
    )
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # zero at first, and the policy would equal the base
            torch.nn.init.normal_(parameter, std=0.05)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # train() would set it
    return trainer


def logprobs(trainer: Any) -> Tensor:
    """logprobs_BT by plain forwards without any padding."""
    rows = []
    for prompt, completion in zip(PROMPT_OF, COMPLETIONS, strict=True):
        prompt_ids = trainer.processing_class(prompt)["input_ids"]
        logits_TV = trainer.model(input_ids=torch.tensor([prompt_ids + completion])).logits[0]
        logprobs_TV = logits_TV[len(prompt_ids) - 1 : -1].log_softmax(-1)
        rows.append(logprobs_TV.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return pad_sequence(rows, batch_first=True)


@pytest.fixture(scope="module")
def frozen(trainer: Any) -> tuple[Tensor, Tensor]:
    """policy_logprobs_BT and ref_logprobs_BT, without gradient."""
    with torch.no_grad():
        policy_BT = logprobs(trainer)
        with trainer.model.disable_adapter():
            return policy_BT, logprobs(trainer)


def score(trainer: Any, scale: AdvantageScale, mode: ImportanceMode | None = None) -> dict[str, Tensor]:
    """TRL's own batch: advantages, and importance weights of the policy against the sampler."""
    trainer.scale_rewards = scale.value
    trainer.use_vllm = mode is not None  # turns the importance weights on; no engine is touched
    trainer._last_loaded_step = trainer.state.global_step  # nothing to push to one
    trainer.vllm_importance_sampling_mode = mode and mode.value
    trainer.vllm_importance_sampling_clip_max = CAP
    return trainer._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPT_OF])


def lora_gradient(trainer: Any, loss: Tensor) -> Tensor:
    trainer.model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("old", ["policy", "sampler", "moved"])
@pytest.mark.parametrize("mode", [None, *ImportanceMode])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kind", LossKind)
def test_loss_and_gradient(
    trainer: Any,
    frozen: tuple[Tensor, Tensor],
    kind: LossKind,
    beta: float,
    mode: ImportanceMode | None,
    old: str,
) -> None:
    policy_BT, ref_BT = frozen
    moved_BT = policy_BT + torch.randn(policy_BT.shape, generator=torch.Generator().manual_seed(1))
    old_BT = {"policy": policy_BT, "sampler": SAMPLER_BT, "moved": moved_BT}[old]
    defaults = LOSS_DEFAULTS[kind]

    trainer.beta = beta
    trainer.loss_type = "grpo" if kind is LossKind.GSPO else kind.value
    trainer.importance_sampling_level = "sequence" if kind is LossKind.GSPO else "token"
    trainer.epsilon_low, trainer.epsilon_high = defaults.clip_low, defaults.clip_high
    batch = score(trainer, defaults.scale, mode) | {"old_per_token_logps": old_BT}
    trl_loss = trainer._compute_loss(trainer.model, batch)
    trl_gradient = lora_gradient(trainer, trl_loss)

    advantages_B = group_advantages(REWARDS, defaults.scale)
    importance_BT = importance_weights(policy_BT, SAMPLER_BT, MASK_BT, mode, CAP) if mode else None
    loss = policy_loss(
        logprobs(trainer),
        sampler_logprobs_BT=SAMPLER_BT,
        mask_BT=MASK_BT,
        advantages_B=advantages_B,
        weights_B=token_weights(MASK_BT.sum(1), kind, MAX_TOKENS),
        kind=kind,
        clip_low=defaults.clip_low,
        clip_high=defaults.clip_high,
        old_logprobs_BT=old_BT,
        importance_BT=importance_BT,
        ref_logprobs_BT=ref_BT if beta else None,
        beta=beta,
    )
    gradient = lora_gradient(trainer, loss.total)

    assert (advantages_B - batch["advantages"]).abs().max() <= TOLERANCE
    assert (loss.total - trl_loss).abs() <= TOLERANCE
    assert (gradient - trl_gradient).abs().max() <= TOLERANCE

    # There was something to agree on, and every bound acted on some tokens and not on others.
    assert trl_gradient.abs().max() > 500 * TOLERANCE
    if importance_BT is not None:
        masks = mode in (ImportanceMode.TOKEN_MASK, ImportanceMode.SEQUENCE_MASK)
        assert 0 < (importance_BT == (0.0 if masks else CAP))[MASK_BT].sum() < MASK_BT.sum()
    if old == "moved":
        assert 0 < loss.sums.clipped_high.sum() < loss.sums.tokens.sum()
        assert loss.sums.clipped_low.any() or kind is LossKind.CISPO


@pytest.mark.parametrize("scale", AdvantageScale)
def test_advantages_of_ragged_groups(trainer: Any, scale: AdvantageScale, monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL too takes a reward of None out of its group; it keeps the sample, with an advantage of 0.
    rewards = [0.5, None, 0.5, 0.5, 1.0, None, 0.0, 0.1, None, 1.0, 0.2, None]
    monkeypatch.setattr(trainer, "reward_funcs", [lambda completions, **_: rewards])
    ours_B = group_advantages([[0.5, 0.5, 0.5], [1.0, 0.0, 0.1], [1.0, 0.2]], scale)
    theirs_B = score(trainer, scale)["advantages"][torch.tensor([r is not None for r in rewards])]
    assert (ours_B - theirs_B).abs().max() <= TOLERANCE
