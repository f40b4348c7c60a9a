"""All parts of the bench, one after the other: nothing else of ours runs while one is measured."""

import gc
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rl.core import log
from rl.core.config import TrainConfig
from rl.core.machine import gpus
from rl.core.nursery import LIBRARY_ENV
from rl.core.rundir import RunDir, name_of
from rl.launch.rollouts import STILL
from rl.measure import learning
from rl.measure.against_trl import measure_learners, measure_whole
from rl.measure.growth import Growth
from rl.measure.parts import measure_buffer, measure_verifier
from rl.measure.publishing import measure_publishing
from rl.measure.sampling import measure_sampling
from rl.measure.side import Side
from rl.measure.whole import WARM_UP, Runs
from rl.measure.work import Figures, Work

STEP = WARM_UP + 1
"""The step of the run whose groups learner and verifier are measured on."""
LEARNER_STEPS = 8


class Bench:
    """
    Args:
        given: the settings that differ from the defaults.
        folder: an empty one, for runs and logs.
        rounds: of each pair of sides.
    """

    def __init__(self, config: TrainConfig, given: Mapping[str, Any], folder: Path, rounds: int) -> None:
        self._config, self._given, self._folder, self._rounds = config, given, folder, rounds
        (folder / "logs").mkdir(parents=True)
        self._runs = Runs(config, given, folder, "run")

    def measure(self, parts: Sequence[str], *, against_trl: bool) -> Figures:
        """The figures of each part, by its name."""
        work, found = Work(self._config), dict[str, Figures]()
        gc.freeze()  # as in the processes of a run, as one of which this one samples: else collecting takes 0.25 s
        log.say(f"a run of {self._config.steps} steps")
        run, whole = self._runs.make()  # the others are measured on its groups, and by its adapter
        measure: dict[str, Callable[[], Figures]] = {
            "end_to_end": lambda: whole,
            "sampling": lambda: measure_sampling(work, run.checkpoints / name_of(0), self._folder, self._rounds),
            "learner": lambda: self._learner(run),
            "publishing": lambda: measure_publishing(work, self._folder, self._rounds),
            "buffer": lambda: measure_buffer(work, self._folder),
            "verifier": lambda: measure_verifier(work, run, STEP),
            "growth": lambda: Growth(self._config, self._given, self._folder).measure(self._rounds),
        }
        for part in parts:
            log.say(f"measuring {part}")
            found[part] = measure[part]()
        if against_trl:
            found["against_trl"] = self._against_trl(run)
        return {"machine": _machine(), "settings": self._config.model_dump(mode="json"), **found}

    def _learner(self, run: RunDir) -> Figures:
        with Side("learner", self._folder / "logs" / "learner.log", LIBRARY_ENV) as side:
            side.call(learning.load, self._config, run.root, STEP)
            side.call(learning.train, 2)
            seconds = median(side.call(learning.train, LEARNER_STEPS))
            facts = side.call(learning.facts)
        flops_per_s = facts["flops"] / seconds
        return {
            "tokens_per_s": facts["completion_tokens"] / seconds,
            "computed_tokens_per_s": facts["computed_tokens"] / seconds,
            "flops_per_s": flops_per_s,
            "matmul_flops_per_s": facts["matmul_flops_per_s"],
            "mfu": flops_per_s / facts["matmul_flops_per_s"],
            "peak_gpu_bytes": facts["peak_gpu_bytes"],
        }

    def _against_trl(self, run: RunDir) -> Figures:
        cores = 1 if gpus() else os.cpu_count() or 1
        groups = learning.read_batch(run, STEP)
        learners = partial(measure_learners, self._config, run.root, STEP, groups, self._folder, self._rounds)
        log.say("measuring the learners of both")
        alone = {f"learner_{threads}_threads": learners(threads) for threads in sorted({1, cores})}
        log.say("measuring runs of both")
        still = {"lr": STILL}  # what each side learns would change the lengths of its completions
        config = self._config.model_copy(update=still)

        def ours() -> float:
            return float(self._runs.make(**still)[1]["samples_per_s"])

        return {**alone, "end_to_end": measure_whole(config, ours, self._folder, self._rounds, cores)}


def _machine() -> Figures:
    return {
        "cores": os.cpu_count(),
        "gpus": gpus(),
        "python": platform.python_version(),
    }
