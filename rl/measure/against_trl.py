"""Ours and TRL's trainer in turn on the same work: the learners on recorded samples, and both from end to end."""

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import median

from rl.core import log
from rl.core.config import TrainConfig
from rl.core.errors import TallyError
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
MICRO = 64
"""Samples in TRL's forward pass, or all of a batch: it is measured with what is faster here."""
Run = Callable[[], float]
"""Makes one of our runs; samples a second."""
Choice = tuple[Generation, int, int]
"""Of TRL's settings: how it generates, samples in a forward pass, threads."""


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
        tokens: int = side.call(learning.facts)["completion_tokens"]

        def rate(choice: Choice) -> float:
            return tokens / median(step.train_s for step in _trl(config, choice, folder, groups))

        rates = tried([("recorded", micro, threads) for micro in sizes(config.batch)], rate)
        fastest = max(rates, key=lambda choice: rates[choice])
        for _ in range(pairs):
            ours.append(tokens / median(side.call(learning.train, STEPS)[WARM_UP:]))
            theirs.append(rate(fastest))
    return Pairs(ours=ours, theirs=theirs).figures("tokens_per_s", "trl_tokens_per_s") | {
        "threads": threads,
        "trl_micro": fastest[1],
    }


def measure_whole(config: TrainConfig, ours: Run, folder: Path, pairs: int, cores: int) -> Figures:
    """Samples a second from end to end. TRL is measured with those of its settings that are fastest here: generation
    by transformers (not on a GPU) or by colocated vLLM, one thread or all, and several sizes of a forward pass."""
    generations: tuple[Generation, ...] = ("vllm",) if gpus() else ("transformers", "vllm")

    def rate(choice: Choice) -> float:
        steps = _trl(config, choice, folder)
        return sum(step.samples for step in steps) / sum(step.step_s for step in steps)

    rates = tried(product(generations, sizes(config.batch), sorted({1, cores})), rate)
    fastest = max(rates, key=lambda choice: rates[choice])
    mine, theirs = [], []
    for _ in range(pairs):
        mine.append(ours())
        theirs.append(rate(fastest))
    return Pairs(ours=mine, theirs=theirs).figures("samples_per_s", "trl_samples_per_s") | {
        "trl": _named(fastest),
        "trl_tried": [_named(choice) | {"samples_per_s": rates[choice]} for choice in rates],
    }


def sizes(batch: int) -> list[int]:
    """Samples in a forward pass of TRL's that are tried."""
    return sorted({micro for micro in (MICRO, batch) if batch % micro == 0})


def tried(choices: Iterable[Choice], rate: Callable[[Choice], float]) -> dict[Choice, float]:
    """The rate by each of them that TRL can work by: a large forward pass may have no memory here.

    Raises:
        TallyError: it can work by none.
    """
    rates: dict[Choice, float] = {}
    for choice in choices:
        try:
            rates[choice] = rate(choice)
        except TallyError as error:
            failure = error
            log.say(f"without {_named(choice)}: {error}")
    if not rates:
        raise failure
    return rates


def _named(choice: Choice) -> Figures:
    return dict(zip(("generation", "micro", "threads"), choice, strict=True))


def _trl(config: TrainConfig, choice: Choice, folder: Path, groups: list[Group] | None = None) -> list[PeerStep]:
    generation, micro, threads = choice
    work = PeerWork(config=config, generation=generation, steps=WARM_UP + STEPS, micro=micro, groups=groups or ())
    with Side("TRL", folder / "logs" / "trl.log", environment(generation, threads)) as side:
        return side.call(train, work, folder / "trl")[WARM_UP:]
