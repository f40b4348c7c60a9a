"""How cost grows: runs with four times the buffer, four times the problems and ten times the length, in turn with one
of none of these. All of them keep the policy still: what it learns would change the lengths of its completions.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.core import log
from rl.core.config import TrainConfig
from rl.core.types import Problem
from rl.launch.rollouts import STILL
from rl.measure.whole import Runs
from rl.measure.work import Figures, Pairs
from rl.problems.prompt import prompt_text
from rl.problems.sources import load_problems

TIMES = 4
TIMES_LONG = 10


class Growth:
    """
    Args:
        given: the settings that differ from the defaults.
        folder: where runs, problems and logs go.
    """

    def __init__(self, config: TrainConfig, given: Mapping[str, Any], folder: Path) -> None:
        self._config, self._folder = config, folder
        problems = list(load_problems(config, "train"))
        self._all = self._written("all", problems)
        few = self._written("few", problems[: len(problems) // TIMES])
        settings = {**given, "problems": few, "prompt": prompt_text(config), "lr": STILL}
        self._runs = Runs(config, settings, folder, "growth")

    def measure(self, rounds: int) -> Figures:
        """Tokens a second by the tokens a second of the base run, pair by pair, and what processes have grown by over
        the long run's steps."""
        sides: dict[str, dict[str, Any]] = {
            "base": {},
            "buffer": {"buffer": TIMES * self._config.buffer},
            "problems": {"problems": self._all},
            "length": {"steps": TIMES_LONG * self._config.steps},  # the last, whose figures stay
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, changed in sides.items():
                log.say(f"a run: {name}")
                _, figures = self._runs.make(**changed)
                rates[name].append(figures["tokens_per_s"])
        base = rates.pop("base")
        pairs = {name: Pairs(ours=rate, theirs=base) for name, rate in rates.items()}
        return {
            **{name: pair.figures("tokens_per_s", "base_tokens_per_s") for name, pair in pairs.items()},
            "steps": figures["steps"],
            "grown_bytes": figures["grown_bytes"],
        }

    def _written(self, name: str, problems: Sequence[Problem]) -> str:
        """Path of a file of these problems."""
        file = self._folder / f"{name}.jsonl"
        question, answer = self._config.problem_field, self._config.answer_field
        rows = (json.dumps({question: problem.text, answer: problem.gold}) for problem in problems)
        file.write_text("".join(f"{row}\n" for row in rows))
        return str(file)
