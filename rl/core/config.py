"""The configuration of a run: one flat record whose field names are the flags.

`--buffer` and `--batch` count samples (completions) and are multiples of `--group-size`. A field that is None by
default follows from others.
"""

from math import ceil, cos, pi
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from rl.core.dburl import check_database_url
from rl.core.kinds import LOSS_DEFAULTS, AdvantageScale, ImportanceMode, LossKind

STARTER = "starter"
STARTERS = (STARTER, "starter-small")
"""Names of the embedded models, the default first."""
HELDOUT = "heldout"
"""The problem set that checkpoints are chosen on; those of `--eval-on` are only reported."""
VERIFY = "rewards:verify"
RESUMABLE = (
    *("steps", "max_minutes", "token_budget", "patience", "keep"),
    *("wandb", "wandb_project", "wandb_group", "wandb_tags", "wandb_adapter", "tensorboard"),
)
"""What `--resume` may change: when the run ends and who follows it, never what it computes."""
REPLAYABLE = (
    *RESUMABLE,
    *("lr", "schedule", "warmup", "lr_floor", "optimizer", "weight_decay", "grad_clip"),
    *("loss", "clip_low", "clip_high", "advantage_scale", "importance", "importance_cap", "kl_coef"),
    *("tuning", "lora_rank", "lora_alpha", "lora_target"),
    *("learners", "micro_tokens", "grad_checkpointing", "attention", "dtype"),
    *("seed", "save_every", "buffer_url"),
)
"""What `--replay` may change: how recorded groups are learned from, never what was asked, sampled or marked."""
FULL_FINE_TUNING_LR = 1e-5
"""Rates at or below this are those of full fine-tuning. LoRA wants about ten times the full rate (Schulman et al. 2025,
"LoRA Without Regret"); published LoRA recipes for GRPO use 1e-5 to 1.7e-4."""
LARGEST_LR = 1e-3


def defaults_of(model: str) -> dict[str, Any]:
    """Settings whose defaults fit the starters alone: other models write longer, and learn at lower rates."""
    return {} if model in STARTERS else {"max_tokens": 512, "lr": 5e-5}


class TrainConfig(BaseModel):
    """Everything that decides what a run computes. Immutable; written to the run's `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    # ---- model and problems
    model: str = STARTER
    """hub name or folder of a transformers causal model; `starter` and `starter-small` are embedded stand-ins"""
    revision: str | None = None
    """branch, tag or commit of a hub model (default: its newest)"""
    trust_remote_code: bool = False
    """run Python code that comes with the model"""
    random_weights: Literal["no", "scaled", "full"] = "no"
    """random weights in the model's shape: its path, no download; scaled: 4 narrow layers, the whole vocabulary"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the base weights, in server and learner; auto: float32 on CPU, bfloat16 on CUDA"""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """of the learner; auto: torch's, on packed samples; another: as transformers names it, on padded ones"""

    # ---- problems and rewards
    problems: str = STARTER
    """starter, starter-sums, gsm8k, math, svamp, a JSONL or Parquet file, a hub data set; a mixture: 3*gsm8k,math"""
    data_dir: str | None = None
    """folder with local copies of named sets, like DIR/gsm8k/train.jsonl (default: the hub)"""
    problem_field: str = "problem"
    """field of a file or hub data set that holds the problem"""
    answer_field: str = "answer"
    """field of a file or hub data set that holds the gold"""
    duplicates: Literal["refuse", "drop"] = "refuse"
    """training problems that are also evaluated: end with their list, or drop them from training"""
    bad_golds: Literal["refuse", "drop"] = "refuse"
    """golds that the verifier cannot parse: end with their list, or drop them and count"""
    prompt: str | None = None
    """a built-in prompt (plain, boxed, cot), or a text with {problem} (default: plain for starter, else boxed)"""
    system_prompt: str | None = None
    """system message before the prompt (default: the chat template's own)"""
    reward: str = VERIFY
    """what marks completions: module:function of (completion, gold)"""
    extraction: Literal["strict", "lenient"] = "strict"
    """where the verifier takes the answer from: strict: the last box only; lenient: wherever it stands"""

    # ---- sampling
    group_size: int = Field(8, ge=2, le=1024)
    """completions sampled for each problem"""
    buffer: PositiveInt = 256
    """samples in flight, stored and in training at any time; with --batch it bounds staleness"""
    max_staleness: int | None = Field(None, ge=0)
    """steps a token's policy may be behind the learner's when trained on (default: buffer / batch - 1)"""
    temperature: float = Field(1.0, ge=0.01, le=2)
    """of sampling, for training and evaluation"""
    max_tokens: PositiveInt = 40
    """tokens a completion may have; 512 for models other than the starter"""

    # ---- learning
    steps: PositiveInt = 200
    """optimizer updates"""
    batch: PositiveInt = 32
    """samples an update is computed from"""
    lr: float = Field(5e-4, gt=0)
    """peak learning rate; 5e-5 for models other than the starter"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """of the learning rate after warm-up: constant, or decaying to --lr-floor after the last step"""
    warmup: int | float = Field(0, ge=0)
    """steps over which the learning rate rises from zero, or their share of all steps where it is below 1"""
    lr_floor: float = Field(0.0, ge=0, le=1)
    """what a linear or cosine decay ends at, as a share of --lr"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """of the trained matrices; muon takes the rates of adamw, as its updates are scaled to the same size"""
    weight_decay: float = Field(0.0, ge=0)
    """decoupled weight decay of the trained matrices: towards the base model, for full fine-tuning, too"""
    grad_clip: float = Field(1.0, gt=0)
    """largest norm of the gradient"""
    loss: LossKind = LossKind.GRPO
    """estimator of the policy gradient"""
    clip_low: float | None = Field(None, ge=0)
    """lower clip of the probability ratio, as a distance from 1; for cispo the smallest ratio (default: the paper's)"""
    clip_high: float | None = Field(None, gt=0)
    """upper clip of the ratio, as a distance from 1; for cispo the largest ratio (default: the paper's)"""
    advantage_scale: AdvantageScale | None = None
    """what reward - mean of the group is divided by (default: the paper's)"""
    importance: ImportanceMode | None = None
    """weigh tokens by policy / sampler, truncated or masked at the cap, instead of clipping it (default: clip)"""
    importance_cap: float = Field(3.0, gt=0)
    """largest weight of --importance"""
    kl_coef: float = Field(0.0, ge=0)
    """weight of the KL penalty towards the base model; 0 computes none"""

    # ---- adapter and learner
    tuning: Literal["lora", "full"] = "lora"
    """what is trained: low-rank adapters, or the whole of each linear layer, served as an adapter of full rank"""
    lora_rank: int = Field(16, ge=1, le=512)
    """rank of the adapter"""
    lora_alpha: float = Field(32.0, gt=0)
    """scale of the adapter: its output is multiplied by alpha / rank"""
    lora_target: str = "all-linear"
    """modules that get an adapter: all-linear, or names separated by commas"""
    learners: PositiveInt = 1
    """learner processes (DDP ranks)"""
    servers: PositiveInt = 1
    """rollout servers"""
    gpu_memory: float | None = Field(None, gt=0, lt=1)
    """share of a GPU's memory for its server (default: 0.9, and 0.45 where a learner has the rest)"""
    micro_tokens: PositiveInt | None = None
    """tokens in one forward pass of one learner (default: 1024 on CPU, 4096 on a GPU; where it cannot pack, at most 1
    GiB of logits)"""
    grad_checkpointing: bool = False
    """recompute activations in the backward pass: less memory, more time"""

    # ---- evaluation
    eval_every: PositiveInt = 50
    """steps between evaluations on held-out problems; the first and the last step always have one"""
    eval_problems: int = Field(256, ge=0)
    """questions of each set in an evaluation; 0 takes all"""
    eval_samples: int = Field(8, ge=1, le=1024)
    """completions of each question"""
    eval_on: str | None = None
    """further sets to evaluate on, like gsm8k@test,math500; checkpoints are chosen on held-out training problems"""
    patience: PositiveInt | None = None
    """end after so many evaluations without a better held-out pass@1 (default: never)"""

    # ---- run
    seed: int = Field(0, ge=0)
    """of the order of problems and of the adapter's initial weights; what is sampled still differs from run to run"""
    save_every: PositiveInt = 50
    """steps between checkpoints"""
    keep: PositiveInt | None = None
    """newest checkpoints to keep, beside the best (default: all)"""
    max_minutes: float | None = Field(None, gt=0)
    """minutes of training, start and evaluations not counted, after which the run saves, evaluates and ends"""
    token_budget: PositiveInt | None = None
    """completion tokens trained on after which the run saves, evaluates and ends"""

    buffer_url: str | None = None
    """database of the ledger of a run that spans machines: postgresql://USER@HOST/DATABASE (default: a file)"""
    replay: str | None = None
    """train on the recorded groups of this run, in its batches and without a server; its settings unless given"""

    # ---- trackers, which follow metrics.jsonl
    wandb: Literal["auto", "offline", "off"] = "auto"
    """Weights & Biases; auto: online with a key and a network, else offline"""
    wandb_project: str = "tally"
    """W&B project"""
    wandb_group: str | None = None
    """W&B group"""
    wandb_tags: str | None = None
    """W&B tags, separated by commas"""
    wandb_adapter: bool = False
    """store the final adapter as a W&B artifact"""
    tensorboard: bool = False
    """write TensorBoard files into the run's tensorboard/"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("batch", "buffer"):
            value = getattr(self, name)
            if value % self.group_size:
                low = value // self.group_size * self.group_size
                near = " or ".join(str(n) for n in (low, low + self.group_size) if n)
                raise ValueError(
                    f"{name} {value} is not a multiple of group_size {self.group_size}: try --{name} {near}"
                )
        if self.buffer < self.batch:
            raise ValueError(f"buffer {self.buffer} cannot hold one batch of {self.batch}: try --buffer {self.batch}")
        if self.batch < self.learners:
            raise ValueError(f"batch {self.batch} leaves some of {self.learners} learners without a sample")
        if self.extraction != "strict" and self.reward != VERIFY:
            raise ValueError(f"extraction {self.extraction} says nothing to the reward {self.reward}: leave it out")
        if self.warmup > self.steps:
            raise ValueError(f"warmup {self.warmup} is longer than the run: --steps is {self.steps}")
        if self.warmup >= 1 and self.warmup % 1:
            steps = f"--warmup {ceil(self.warmup)}"
            raise ValueError(f"warmup {self.warmup} is no number of steps, nor a share below 1: try {steps}")
        if self.buffer_url is not None:
            check_database_url(self.buffer_url)
        if self.lr_floor and self.schedule == "constant":
            fix = "try --schedule linear, or leave --lr-floor out"
            raise ValueError(f"lr_floor {self.lr_floor:g} says nothing to a constant rate: {fix}")
        return self

    @property
    def staleness_bound(self) -> int:
        """Steps: what the buffer's capacity allows, or less where `max_staleness` says so."""
        by_capacity = -(-self.buffer // self.batch) - 1
        return by_capacity if self.max_staleness is None else min(self.max_staleness, by_capacity)

    @property
    def check(self) -> str:
        """The function that marks completions, for `rewards.VerifierPool`."""
        return "rewards:verify_leniently" if self.extraction == "lenient" else self.reward

    @property
    def eval_sets(self) -> list[str]:
        """Names of the problem sets of an evaluation, the held-out problems first."""
        further = (name.strip() for name in (self.eval_on or "").split(","))
        return list(dict.fromkeys([HELDOUT, *filter(None, further)]))

    @property
    def clip(self) -> tuple[float, float]:
        """(low, high), the paper's where the user named none."""
        paper = LOSS_DEFAULTS[self.loss]
        low = paper.clip_low if self.clip_low is None else self.clip_low
        high = paper.clip_high if self.clip_high is None else self.clip_high
        return low, high

    @property
    def scale(self) -> AdvantageScale:
        """Of the advantages, the paper's where the user named none."""
        return self.advantage_scale or LOSS_DEFAULTS[self.loss].scale

    @property
    def warmup_steps(self) -> int:
        """A share is rounded up to whole steps, as transformers does."""
        steps = self.warmup * self.steps if self.warmup < 1 else self.warmup
        return ceil(round(steps, 9))  # 0.07 × 100 is a little above 7

    def lr_at(self, step: int) -> float:
        """The learning rate of the update that makes `step` (1 … steps)."""
        warmup = self.warmup_steps
        if step <= warmup:
            return self.lr * step / warmup
        left = (self.steps - step + 1) / max(1, self.steps - warmup)
        decay = {"constant": 1.0, "linear": left, "cosine": (1 - cos(pi * left)) / 2}[self.schedule]
        return self.lr * (self.lr_floor + (1 - self.lr_floor) * decay)

    def consequences(self) -> list[str]:
        """What follows from the configuration, in sentences for `--dry-run` and the start of a run."""
        groups = self.batch // self.group_size
        lines = [
            f"{self.batch} samples a step: {groups} problems × {self.group_size} completions; "
            f"{self.batch * self.steps} samples in {self.steps} steps",
            f"buffer {self.buffer} / batch {self.batch}: samples are at most {self.staleness_bound} steps stale"
            + (" (on-policy)" if self.staleness_bound == 0 else ""),
        ]
        if self.replay is not None:
            lines.insert(0, f"replay of {self.replay}: its recorded groups in its batches; no server, no evaluations")
        low, high = self.clip
        if self.importance is not None:
            recipe = f"no clip; weighs tokens by policy / sampler ({self.importance} at {self.importance_cap:g})"
        elif self.loss is LossKind.CISPO:
            recipe = f"keeps the ratio in [{low:g}, {high:g}]"
        else:
            recipe = f"clips the ratio to [{1 - low:g}, {1 + high:g}]"
        lines.append(f"loss {self.loss}: {recipe}; advantages are divided by: {self.scale}")
        if self.random_weights != "no":
            lines.append(f"random weights, marked by {self.reward}: this shows a path; none of its figures is a result")
        if self.tuning == "full":
            lines.append(
                "full fine-tuning of the linear layers, served as an adapter of full rank; "
                "--lora-rank and --lora-alpha say nothing to it"
            )
        if self.tuning == "lora" and self.lr > LARGEST_LR:
            lines.append(f"lr {self.lr:g} is above every published LoRA rate: expect the policy to collapse")
        if self.tuning == "lora" and self.lr <= FULL_FINE_TUNING_LR:
            lines.append(
                f"lr {self.lr:g} is a rate for full fine-tuning: a LoRA adapter hardly moves at it, so expect a flat "
                "curve. Published LoRA recipes use 1e-5 to 2e-4 on 0.5B–8B models; the starter model learns at 5e-4"
            )
        return lines
