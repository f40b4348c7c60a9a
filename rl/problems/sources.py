"""The problems of a run: what it trains on, what it holds out, and on what else it is evaluated."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.golds import gold_faults, has_own_reward
from rl.problems.order import Mixture
from rl.problems.sets import Source, find_source, parse_mixture
from rl.problems.starter import STARTER_SETS, starter_problems
from rl.problems.stored import StoredProblems, cached_json, concatenated, stored, version_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHOWN = 5
"""Examples in a message; the rest is counted."""


def load_problems(config: TrainConfig, split: Split) -> Sequence[Problem]:
    """The problems that `--problems` trains on (a `Mixture` where they are several sets), or those held out of them.

    Raises:
        UsageError: a source cannot be read, a row lacks a field, or nothing is left of a set.
    """
    if _only_starter(config):
        return starter_problems(split, config.problems)
    if split == "heldout":
        return _not_empty(_heldout(config), f"{config.problems} has no heldout problems")
    parts, weights = _training(config), [weight for weight, _ in parse_mixture(config.problems)]
    for source, part in zip(_trained(config), parts, strict=True):
        _not_empty(part, f"{source.name} has no train problems")
    return parts[0] if len(parts) == 1 else Mixture(tuple(parts), tuple(weights))


def load_eval_sets(config: TrainConfig) -> dict[str, Sequence[Problem]]:
    """The sets of an evaluation by name in the order of their report: what is held out of the training problems, then
    those of `eval_on`. Each is in the order of the problems' ids, so that the first `eval_problems` are a random part.

    Raises:
        UsageError: as `load_problems`.
    """
    sets = {HELDOUT: load_problems(config, "heldout")}
    for name, source in _only_evaluated(config).items():
        sets[name] = _not_empty(_usable(source, config), f"{name} has no problems")
    return {name: problems[: config.eval_problems or None] for name, problems in sets.items()}


def fingerprint(config: TrainConfig) -> str:
    """SHA-256 over the problems that are trained on and held out: a run must not go on with others."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for problem in load_problems(config, split):
            digest.update(f"{split} {problem.id} {problem.gold}\n".encode())
    return digest.hexdigest()


def check_problems(config: TrainConfig) -> list[str]:
    """Checks problems and golds, for whoever starts a run. Returns what is left out of it, in sentences.

    Raises:
        UsageError: as `load_problems`; or golds that cannot be verified, or training problems that are also evaluated,
            where they are not to be dropped.
    """
    left_out: list[str] = []
    if not _only_starter(config):
        sources = [*_trained(config), *_only_evaluated(config).values()]
        left_out = [*_check_repeats(sources), *_check_golds(sources, config), *_check_duplicates(config)]
    load_problems(config, "train")
    load_eval_sets(config)
    return left_out


def _check_repeats(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        problems = stored(source)
        if repeats := problems.repeats:
            count = f"{repeats} of {len(problems) + repeats}"
            yield f"{source.name}: {count} rows are left out, as they repeat a problem, whose first gold counts"


def _check_golds(sources: list[Source], config: TrainConfig) -> Iterator[str]:
    if has_own_reward(config):
        return
    for source in sources:
        problems, faults = stored(source), _gold_faults(source)
        bad = problems.where(problems.has_gold_in(faults))
        count = f"{len(bad)} of {len(problems)}"
        if len(bad) and config.bad_golds == "refuse":
            shown = "".join(f"\n  {p.gold!r} to {p.text[:60]!r}: {faults[p.gold]}" for p in bad[:SHOWN])
            message = f"{source.name}: {count} golds cannot be verified, among them{shown}"
            raise UsageError(message, fix="correct them, or leave these problems out: --bad-golds drop")
        if len(bad):
            yield f"{source.name}: {count} problems are left out, as their golds cannot be verified"


def _check_duplicates(config: TrainConfig) -> Iterator[str]:
    for source, part in zip(_trained(config), _candidates(config), strict=True):
        both = part.where(_evaluated(part, config))
        count = f"{len(both)} of {len(part)}"
        if len(both) and config.duplicates == "refuse":
            shown = "".join(f"\n  {problem.text[:100]!r}" for problem in both[:SHOWN])
            message = f"{source.name}: {count} training problems are also evaluated, among them{shown}"
            raise UsageError(message, fix="leave them out of training: --duplicates drop")
        if len(both):
            yield f"{source.name}: {count} problems are left out of training, as they are evaluated"


def _training(config: TrainConfig) -> list[StoredProblems]:
    parts = _candidates(config)
    return [part.where(~_evaluated(part, config)) for part in parts] if config.duplicates == "drop" else parts


def _candidates(config: TrainConfig) -> list[StoredProblems]:
    """What each set of the mixture trains on, duplicates of evaluated problems still among it; each text once."""
    import numpy as np

    seen = np.array([], np.uint64)
    parts = []
    for source in _trained(config):
        part = _usable(source, config)
        part = part.where(~part.column("heldout"))
        part = part.where(~np.isin(part.column("id"), seen))
        seen = np.concatenate([seen, part.column("id")])
        parts.append(part)
    return parts


def _heldout(config: TrainConfig) -> StoredProblems:
    parts = [_usable(source, config) for source in _trained(config)]
    return concatenated([part.where(part.column("heldout")) for part in parts])


def _evaluated(part: StoredProblems, config: TrainConfig) -> "NDArray[np.bool_]":
    """Which of these problems are evaluated too, but for case and white space."""
    import numpy as np

    sets = [_heldout(config), *(_usable(source, config) for source in _only_evaluated(config).values())]
    return np.isin(part.column("key"), np.concatenate([problems.column("key") for problems in sets]))


def _usable(source: Source, config: TrainConfig) -> StoredProblems:
    """The problems of a source, without those whose golds are to be dropped."""
    problems = stored(source)
    if config.bad_golds == "refuse" or has_own_reward(config):
        return problems
    return problems.where(~problems.has_gold_in(_gold_faults(source)))


def _gold_faults(source: Source) -> dict[str, str]:
    """`gold_faults` of a source, computed once: every process of a run must drop the same."""
    doing = f"checking the golds of {source.name}"
    return cached_json(version_of(source), doing, lambda: gold_faults(stored(source).golds()))


def _trained(config: TrainConfig) -> list[Source]:
    return [find_source(name, config, preferred="train") for _, name in parse_mixture(config.problems)]


def _only_evaluated(config: TrainConfig) -> dict[str, Source]:
    return {name: find_source(name, config, preferred="test") for name in config.eval_sets if name != HELDOUT}


def _only_starter(config: TrainConfig) -> bool:
    """Then all is in memory, and nothing is imported to read files."""
    return config.problems in STARTER_SETS and config.eval_sets == [HELDOUT]


def _not_empty(problems: StoredProblems, what: str) -> StoredProblems:
    if not len(problems):
        raise UsageError(what, fix="add rows: of those trained on one in ten is held out, by the hash of its text")
    return problems
