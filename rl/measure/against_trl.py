"""Ours and TRL's trainer in turn on the same work: the learners on recorded samples, and both from end to end."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import cast

from rl.core.config import TrainConfig
from rl.core.machine import gpus
from rl.core.nursery import LIBRARY_ENV
from rl.core.types import Group
from rl.measure import learning
from rl.measure.peer import Generation, PeerStep, PeerWork, environment, train
from rl.measure.side import Side
from rl.measure.work import Figures, Pairs

STEPS = 5
WARM_UP = 1
"""TRL's steps that are not counted."""
MICRO = (64, 512)
"""Samples in TRL's forward pass: what it is measured with is what is faster here."""
Run = Callable[[], float]
"""Makes one of our runs; samples a second."""


def measure_learners(
    config: TrainConfig, run: Path, step: int, groups: list[Group], folder: Path, pairs: int, threads: int
) -> Figures:
    """Completion tokens a second of forward and backward, on the groups of one step of a run.

    Args:
        threads: of both sides.
    """
    env = LIBRARY_ENV | {"OMP_NUM_THREADS": str(threads)}
    ours, theirs = [], []
    with Side("learner", folder / "logs" / "learner.log", env) as side:
        side.call(learning.load, config, run, step)
        tokens = side.call(learning.facts)["completion_tokens"]
        micro = _best(lambda micro: _trl(config, "recorded", micro, threads, folder, groups), config)
        for _ in range(pairs):
            seconds = side.call(learning.train, STEPS)[WARM_UP:]
            ours.append(tokens / median(seconds))
            steps = _trl(config, "recorded", micro, threads, folder, groups)
            theirs.append(tokens / median(step.train_s for step in steps))
    return Pairs(ours=ours, theirs=theirs).figures("tokens_per_s", "trl_tokens_per_s") | {
        "threads": threads,
        "trl_micro": micro,
    }


def measure_whole(config: TrainConfig, ours: Run, folder: Path, pairs: int, cores: int) -> Figures:
    """Samples a second from end to end. TRL is measured with those of its settings that are fastest here: generation
    by transformers (not on a GPU) or by colocated vLLM, one thread or all, and several sizes of a forward pass."""
    generations = ("vllm",) if gpus() else ("transformers", "vllm")
    choices = list(product(generations, sorted({1, cores})))
    rates: dict[tuple[Generation, int, int], float] = {}
    for generation, threads in cast(list[tuple[Generation, int]], choices):
        for micro in _sizes(config):
            steps = _trl(config, generation, micro, threads, folder)
            rates[generation, micro, threads] = _samples_per_s(steps)
    generation, micro, threads = max(rates, key=lambda choice: rates[choice])
    mine, theirs = [], []
    for _ in range(pairs):
        mine.append(ours())
        theirs.append(_samples_per_s(_trl(config, generation, micro, threads, folder)))
    return Pairs(ours=mine, theirs=theirs).figures("samples_per_s", "trl_samples_per_s") | {
        "trl": {"generation": generation, "micro": micro, "threads": threads},
        "trl_tried": [
            {"generation": g, "micro": m, "threads": t, "samples_per_s": rate} for (g, m, t), rate in rates.items()
        ],
    }


def _best(measure: Callable[[int], list[PeerStep]], config: TrainConfig) -> int:
    """The size of TRL's forward pass that trains fastest."""
    return min(_sizes(config), key=lambda micro: median(step.train_s for step in measure(micro)))


def _sizes(config: TrainConfig) -> list[int]:
    return [micro for micro in MICRO if config.batch % micro == 0] or [config.batch]


def _trl(
    config: TrainConfig,
    generation: Generation,
    micro: int,
    threads: int,
    folder: Path,
    groups: list[Group] | None = None,
) -> list[PeerStep]:
    work = PeerWork(config=config, generation=generation, steps=WARM_UP + STEPS, micro=micro, groups=groups or ())
    with Side("TRL", folder / "logs" / "trl.log", environment(generation, threads)) as side:
        return side.call(train, work, folder / "trl")[WARM_UP:]


def _samples_per_s(steps: list[PeerStep]) -> float:
    return sum(step.samples for step in steps) / sum(step.step_s for step in steps)
