"""What a rule finds in a run, and the run as rules look at it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, sqrt
from typing import Any

import numpy as np

from rl.core.config import HELDOUT, VERIFY, TrainConfig, defaults_of
from rl.core.errors import UsageError
from rl.core.kinds import LossKind
from rl.evaluate.result import Comparison, EvalResult, compare
from rl.evaluate.stats import Difference
from rl.observe.course import TELLING, Course
from rl.observe.readings import RECENT
from rl.study.runs import Status, StudyRun
from rl.study.words import short

ENOUGH = 20
"""Steps before which nothing is said of a trend."""
SPAN = 4 * ENOUGH
"""Steps before which nothing is said to have stopped: the lines of a log may be any number of them apart."""
FEW_TOLERANCE = 0.02
"""Share by which a loss may change and count as the same."""
TIED = 0.7
"""Share of groups without signal above which most of the sampling is lost."""
FEW_GROUPS = 16
"""Groups before which nothing is said of them."""
ALIASES = {
    "reward": ("reward", "rewards", "train_reward", "mean_reward", "reward_mean"),
    "train loss": ("train_loss", "training_loss", "loss"),
    "val loss": ("val_loss", "eval_loss", "validation_loss", "valid_loss", "test_loss"),
    "grad_norm": ("grad_norm", "gradient_norm", "train_grad_norm"),
    "truncated": ("truncated", "completions_clipped_ratio", "clipped_ratio"),
    "no_signal": ("no_signal", "frac_reward_zero_std"),
}
"""What rules ask for → its names in ours and in other tools' files, the first that is there counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong with a run."""

    rule: str
    what: str
    evidence: str
    """With its numbers."""
    cure: str
    """What to try, in words."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings to try, by their names in `TrainConfig`."""
    command: str = ""
    """To paste, where no setting helps."""
    data: dict[str, Any] = field(default_factory=dict)
    """The numbers of the evidence; JSON, finite."""

    @property
    def pasted(self) -> str:
        """What can be pasted: flags of `rl.train`, or a command."""
        return " ".join(f"--{name.replace('_', '-')} {short(v)}" for name, v in self.changes.items()) or self.command

    @property
    def line(self) -> str:
        return f"{self.what}: {self.evidence}; {self.cure}" + (f": {self.pasted}" if self.pasted else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """What became of a run's groups, by its ledger."""

    counts: Mapping[str, int]
    """State → groups."""
    tied_reward: float | None = None
    """Mean reward of the groups without signal; None where it was not looked up."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run as rules look at it."""

    run: StudyRun
    groups: Groups | None = None
    _courses: dict[str, Course | None] = field(default_factory=dict, init=False)
    """Made so far: many rules ask for the same ones."""

    @cached_property
    def config(self) -> TrainConfig | None:
        """None for a run of another tool."""
        return TrainConfig.model_validate(self.run.settings) if self.run.ours else None

    def setting(self, name: str) -> Any:
        """None where it is not known."""
        return self.run.settings.get(name)

    def number(self, name: str) -> float | None:
        """A setting that is a number; None where it is not known, or another thing."""
        value = self.setting(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        return float(value) if is_number else None

    def course(self, name: str) -> Course | None:
        """None where nothing finite was measured."""
        if name not in self._courses:
            self._courses[name] = self._course(name)
        return self._courses[name]

    def _course(self, name: str) -> Course | None:
        for alias in ALIASES.get(name, (name,)):
            if alias in self.run.curves and len(course := Course.of(alias, self.run.curves[alias])):
                return course
        return None

    def recent(self, name: str) -> float | None:
        """The mean of the last steps; None where there are too few."""
        course = self.course(name)
        return course.part(-RECENT).mean if course is not None and len(course) >= 5 else None

    @property
    def usual_lr(self) -> float:
        """What its model learns at: full fine-tuning at about a tenth of LoRA's rate."""
        lora: float = defaults_of(self.run.settings.get("model", "")).get("lr", TrainConfig.model_fields["lr"].default)
        return lora / 10 if self.setting("tuning") == "full" else lora

    @property
    def has_own_reward(self) -> bool:
        return self.run.ours and self.setting("reward") != VERIFY

    def evaluations(self, set: str = HELDOUT) -> list[EvalResult]:
        return [evaluated.result for evaluated in self.run.evaluations.get(set, [])]

    @property
    def over(self) -> bool:
        return self.run.status is Status.DONE


def compared(base: EvalResult, other: EvalResult) -> Comparison | None:
    """None where they cannot be compared: measured on other questions, or in another way."""
    try:
        return compare(base, other)
    except UsageError:
        return None


def rounded(rate: float) -> float:
    """To one digit, as rates are typed."""
    return float(f"{rate:.0e}")


def heldout_change(s: Subject) -> Difference | None:
    """Of pass@1 from the first to the last evaluation; None where there are not two that can be compared."""
    results = s.evaluations()
    comparison = compared(results[0], results[-1]) if len(results) > 1 else None
    return comparison.pass_at_1 if comparison else None


def progress(s: Subject) -> Course | None:
    """What is to get better: the reward, or else a loss that is no policy gradient's; that of a few evaluations only
    where the other has no more points."""
    reward = s.course("reward")
    if reward is not None or s.run.ours:
        return reward
    val, train = s.course("val loss"), s.course("train loss")
    return val if val is not None and (len(val) >= TELLING or not has_telling(train)) else train


def has_telling(course: Course | None) -> bool:
    """Whether there are points enough to know of its noise."""
    return course is not None and len(course) >= TELLING


def is_still(loss: Course) -> bool:
    """Whether a loss hardly moved, over steps enough, and with as little noise as it takes, to say so. One that fell
    and levelled off is not still: how much of it there is to lose is not known."""
    first, last = _ends(loss)
    error = loss.noise * sqrt(2 / len(first)) if has_telling(loss) else 0.0
    is_seen = np.ptp(loss.steps) >= SPAN and max(abs(last.mean - first.mean), error) < FEW_TOLERANCE * abs(first.mean)
    return bool(is_seen)


def is_lora(s: Subject) -> bool:
    return s.setting("tuning") in (None, "lora") and s.setting("lora_rank") is not None


def moved(course: Course) -> str:
    if course.name.endswith("loss"):
        first, last = _ends(course)
        return f"{course.name} went from {first.mean:.4g} {_when(first)} to {last.mean:.4g} {_when(last)}"
    change = course.change()
    return f"{course.name} changed by {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] {_when(course)}"


def _ends(course: Course) -> tuple[Course, Course]:
    """Its first and its last third; of a few points the first and the last."""
    third = max(1, len(course) // 3)
    return course.part(0, third), course.part(-third)


def _when(course: Course) -> str:
    first, last = course.steps[0], course.steps[-1]
    return f"in steps {first} to {last}" if len(course) > 1 else f"at step {first}"


def interval(change: Difference) -> str:
    return f"changed by {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def clipped(s: Subject) -> Course | None:
    """The share of tokens that either clip acted on; None for GSPO, which clips whole sequences at a distance of 3e-4,
    and in sound runs most of them."""
    low, high = s.course("clipped_low"), s.course("clipped_high")
    if low is None or high is None or len(low) != len(high) or s.setting("loss") == LossKind.GSPO:
        return None
    return Course(name="clipped", steps=low.steps, values=low.values + high.values)


def tied_share(s: Subject) -> tuple[float | None, float | None]:
    """(share of groups without signal, their mean reward): of the last steps, or of all where hardly any was made."""
    share, counts = s.recent("no_signal"), s.groups.counts if s.groups else {}
    ended = sum(counts.get(state, 0) for state in ("trained", "no_signal", "expired"))
    overall = counts.get("no_signal", 0) / ended if ended >= FEW_GROUPS else None
    if overall is not None and (share is None or overall > max(TIED, share)):
        return overall, s.groups.tied_reward if s.groups else None
    reward, trained = s.recent("reward"), s.recent("reward_trained")
    if share is None or reward is None or trained is None or not share:
        return share, None
    return share, min(1.0, max(0.0, (reward - (1 - share) * trained) / share))
