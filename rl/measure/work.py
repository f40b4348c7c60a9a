"""What is measured: a configuration's problems as prompts, and the parts of a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rl.core.config import TrainConfig
from rl.core.types import Problem
from rl.problems.models import resolve_model
from rl.problems.order import ProblemOrder
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems
from rollout_server.schema import GenerateRequest

Figures = dict[str, Any]
"""Of one part, as JSON has them; a name ends in its unit."""
POLICY = "bench-0"
"""On the servers of the bench."""


class Work:
    """A batch of a run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.model = resolve_model(config)
        self.prompter = Prompter(self.model, config)
        self._order = ProblemOrder(load_problems(config, "train"), config.seed)

    def problems(self, groups: int) -> list[Problem]:
        """Those of the first groups, in the run's order."""
        return [self._order(group_id) for group_id in range(1, groups + 1)]

    def requests(self) -> list[GenerateRequest]:
        """A full buffer as the collector asks for it: a request for each group, by the newest version."""
        return [
            GenerateRequest(
                policy=POLICY,
                prompts=[self.prompter.prompt_ids(problem)],
                n=self.config.group_size,
                sampling=self.prompter.sampling(self.config.temperature, self.config.max_tokens),
            )
            for problem in self.problems(self.config.buffer // self.config.group_size)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Two sides measured in turn, so that a busy minute of the machine falls on both."""

    ours: Sequence[float]
    theirs: Sequence[float]

    def figures(self, ours: str, theirs: str) -> Figures:
        """Medians under these names, `ratio` (the median of the pairs' ratios, ours by theirs) and `ratios`."""
        ratios = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]
        return {ours: median(self.ours), theirs: median(self.theirs), "ratio": median(ratios), "ratios": ratios}


def quantiles(seconds: Sequence[float]) -> Figures:
    """The median and the 99th percentile (of a few: the largest)."""
    ordered = sorted(seconds)
    return {"p50_s": median(ordered), "p99_s": ordered[round(0.99 * (len(ordered) - 1))]}
