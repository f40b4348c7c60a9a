"""TRL's `GRPOTrainer` on the same model, prompts, lengths and LoRA: the other side of `rl.bench --against-trl`."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rl.core.config import TrainConfig
from rl.core.types import Group
from rl.measure.work import Work

Generation = Literal["transformers", "vllm", "recorded"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerWork:
    """What TRL is to do."""

    config: TrainConfig
    generation: Generation
    """vllm: colocated, with all weights synchronised every step; recorded: completions that are there already."""
    steps: int
    micro: int
    """Samples in one forward pass."""
    groups: Sequence[Group] = ()
    """Of `recorded`: what each step is trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerStep:
    """Seconds of one optimizer step, and what was trained in it."""

    step_s: float
    generate_s: float
    score_s: float
    """rewards, and what TRL computes before the loss"""
    train_s: float
    """forward and backward"""
    samples: int
    tokens: int
    """of completions"""


class _Clock:
    """Seconds and counts since the last step."""

    def __init__(self) -> None:
        self.steps: list[PeerStep] = []
        self._seconds: dict[str, float] = defaultdict(float)
        self._tokens = self._samples = 0
        self._begin = time.perf_counter()

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - begin

    def count(self, completions: Sequence[Sequence[int]]) -> None:
        self._samples += len(completions)
        self._tokens += sum(map(len, completions))

    def begin(self) -> None:
        self._begin = time.perf_counter()

    def end_step(self) -> None:
        """TRL nests them: `prepare` is generation and scoring, and a `micro` step begins with it."""
        now, seconds = time.perf_counter(), self._seconds
        self.steps.append(
            PeerStep(
                step_s=now - self._begin,
                generate_s=seconds["generate"],
                score_s=seconds["prepare"] - seconds["generate"],
                train_s=seconds["micro"] - seconds["prepare"],
                samples=self._samples,
                tokens=self._tokens,
            )
        )
        self._begin, self._tokens, self._samples = now, 0, 0
        self._seconds.clear()


def environment(generation: Generation, threads: int) -> dict[str, str]:
    """Of the process that trains."""
    env = {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    if generation == "vllm":
        env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1"}
    return env


def train(work: PeerWork, scratch: Path) -> list[PeerStep]:
    """Trains by TRL; a step's samples are all freshly generated, after the weights were synchronised."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from rewards.trl import accuracy_reward

    cuda, config = torch.cuda.is_available(), work.config
    if work.generation == "vllm" and not cuda:
        _mend_vllm_on_cpu()
    rows = Work(config)
    problems = rows.problems(work.steps * config.batch // config.group_size)
    if work.groups:
        problems = [group.problem for group in work.groups] * work.steps
    clock = _Clock()

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("generate"):
                answer = super()._generate(*args, **kwargs)
            clock.count(answer[1])
            return answer

        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("prepare"):
                return super()._generate_and_score_completions(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            with clock.time("micro"):
                loss = super().training_step(*args, **kwargs)  # type: ignore[no-untyped-call]
                if cuda:
                    torch.cuda.synchronize()  # it returns before the GPU has done it
                return loss

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.begin()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.end_step()

    settings = GRPOConfig(
        output_dir=str(scratch),
        per_device_train_batch_size=work.micro,
        gradient_accumulation_steps=config.batch // work.micro,
        num_generations=config.group_size,
        max_completion_length=config.max_tokens,
        max_steps=work.steps,
        learning_rate=config.lr,
        lr_scheduler_type="constant",
        beta=0.0,
        loss_type="grpo",
        temperature=config.temperature,
        use_cpu=not cuda,
        bf16=cuda,
        gradient_checkpointing=config.grad_checkpointing,
        report_to=[],
        save_strategy="no",
        seed=config.seed,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_vllm=work.generation == "vllm",
        vllm_mode="colocate",
        vllm_max_model_length=None if cuda else 512,
        vllm_gpu_memory_utilization=config.gpu_memory or 0.45,
        model_init_kwargs={
            "dtype": "bfloat16" if cuda else "float32",
            "trust_remote_code": config.trust_remote_code,
        },
    )
    adapter = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    trainer = Timed(
        model=rows.model,
        reward_funcs=accuracy_reward,
        args=settings,
        train_dataset=Dataset.from_list(
            [{"prompt": rows.prompter.render(p.text), "solution": p.gold} for p in problems]
        ),
        peft_config=adapter,
        callbacks=[Steps()],
        rollout_func=_replay(work.groups) if work.groups else None,
    )
    trainer.train()
    return clock.steps


def _replay(groups: Sequence[Group]) -> Any:
    """TRL's `rollout_func` that generates nothing: every step gets these samples."""
    samples = [(group.prompt_ids, sample.rollout) for group in groups for sample in group.samples]

    def rollouts(prompts: list[str], _trainer: object) -> Mapping[str, list[Any]]:
        assert len(prompts) == len(samples), (len(prompts), len(samples))
        return {
            "prompt_ids": [prompt_ids for prompt_ids, _ in samples],
            "completion_ids": [rollout.token_ids for _, rollout in samples],
            "logprobs": [rollout.sampler_logprobs for _, rollout in samples],
        }

    return rollouts


def _mend_vllm_on_cpu() -> None:
    """vLLM packs the weights of linear layers for oneDNN on CPU, and TRL writes them where they were: its first
    synchronisation fails. Without oneDNN they stay. TRL names no dtype, and vLLM's own is not the learner's."""
    from importlib import import_module

    import vllm._custom_ops as ops

    ops._supports_onednn = False
    generation: Any = import_module("trl.generation.vllm_generation")
    engine = generation.LLM
    generation.LLM = lambda **settings: engine(**{**settings, "enforce_eager": True, "dtype": "float32"})
