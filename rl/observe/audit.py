"""The audit of a run, from its ledger alone: whether the books balance, and what they say of what was trained on."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from rl.buffer.audit import by_step, staleness, violations
from rl.buffer.history import Books, History, Row
from rl.buffer.tables import State
from rl.core.rundir import RunDir

RANGES = 8
"""Lines, at most, of the staleness by step."""
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True, slots=True)
class InState:
    """The groups in one state."""

    groups: int
    samples: int
    tokens_per_sample: float | None
    """None where nothing was sampled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A difference of mean lengths with its 95 % interval, in tokens a sample."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How the lengths of trained groups differ from those of all that were sampled and had their turn.

    What is in flight or stored is left out: long completions come later, and would be missing among the trained ones
    for no other reason. ``trained − sampled`` is the sum of the two gaps.
    """

    sampled: float
    """Tokens a sample."""
    trained: float
    by_design: Gap | None
    """By groups that teach nothing: without signal, or unverified. None where there are too few groups to tell."""
    by_staleness: Gap | None
    """By groups that expired; None where none did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ages:
    """Staleness of the groups trained in the steps `first` to `last`."""

    first: int
    last: int
    groups: int
    mean: float
    max: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What the ledger of a run says."""

    replay: str | None
    """The run whose groups this one trains on again."""
    violations: dict[str, list[str]]
    """Rule → what breaks it; see `rl.buffer.audit`."""
    issued: int
    states: dict[State, InState]
    steps: int
    """Trained."""
    committed: int | None
    """The newest committed step."""
    trained_after_commit: int
    """Groups that a resume would train again."""
    problems: int | None
    """Those the run draws from, where that is known."""
    problems_sampled: int
    """Distinct ones."""
    problems_trained: int
    lengths: Lengths | None
    """None before the first step."""
    staleness_bound: int
    staleness: dict[int, int]
    """Steps → trained groups that were so many steps stale."""
    staleness_by_step: list[Ages]
    launches: int
    """Policies that were proved: each launch of a run has its own."""
    versions: int
    """Proved."""
    proved_again: int
    """Versions proved in more than one launch."""
    proved_again_differently: int
    """Of these, those with other bytes."""

    @property
    def balanced(self) -> bool:
        return not any(self.violations.values())


def audit(run: RunDir) -> Audit:
    """Reads the ledger as it is at this moment, also while the run goes on.

    Raises:
        UsageError: this is no run, or it has no ledger that can be read.
    """
    config = run.config()
    with closing(History(run.buffer_url)) as history:
        books = history.books()
        broken = violations(history, books, config)
    trained = [row for row in books.rows if row.state == State.TRAINED]
    committed = max(books.commits, default=None)
    hashes: dict[int, list[str]] = defaultdict(list)
    for (_, version), sha256 in books.proofs.items():
        hashes[version].append(sha256)
    again = [proved for proved in hashes.values() if len(proved) > 1]
    return Audit(
        replay=config.replay,
        violations=broken,
        issued=len(books.rows),
        states={state: _in_state([row for row in books.rows if row.state == state]) for state in State},
        steps=len(by_step(trained)),
        committed=committed,
        trained_after_commit=sum((row.step or 0) > (committed or 0) for row in trained),
        problems=books.problems,
        problems_sampled=len({row.problem for row in books.rows} - {None}),
        problems_trained=len({row.problem for row in trained} - {None}),
        lengths=_lengths(books),
        staleness_bound=config.staleness_bound,
        staleness=dict(sorted(Counter(_ages(trained)).items())),
        staleness_by_step=_ages_by_step(trained),
        launches=len({policy for policy, _ in books.proofs}),
        versions=len(hashes),
        proved_again=len(again),
        proved_again_differently=sum(len(set(proved)) > 1 for proved in again),
    )


def gap(lengths: Sequence[float], ours: Sequence[bool], theirs: Sequence[bool], problems: Sequence[str]) -> Gap | None:
    """Mean length of ours − of theirs, which may overlap, with a 95 % interval that is clustered by problem: groups of
    one problem share its length.

    The variance is that of the difference's influence function, summed over each of K problems, times K / (K − 1).

    Args:
        lengths: of N groups, as are the others.

    Returns:
        None where one side is empty or there is one problem.
    """
    x, a, b = np.asarray(lengths, dtype=np.float64), np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    _, cluster = np.unique(np.asarray(problems), return_inverse=True)
    clusters = int(cluster.max(initial=-1)) + 1
    if not a.any() or not b.any() or clusters < 2:
        return None
    mean_a, mean_b = float(x[a].mean()), float(x[b].mean())
    influence = a * (x - mean_a) / a.sum() - b * (x - mean_b) / b.sum()
    by_problem = np.bincount(cluster, weights=influence)
    error = sqrt(float(by_problem @ by_problem) * clusters / (clusters - 1))
    value = mean_a - mean_b
    return Gap(value=value, low=value - _Z * error, high=value + _Z * error)


def _lengths(books: Books) -> Lengths | None:
    newest = max((row.id for row in books.rows if row.state == State.TRAINED), default=0)
    rows = [row for row in books.rows if row.id <= newest and row.samples and row.tokens is not None]
    trained = [row.state == State.TRAINED for row in rows]
    if not any(trained):
        return None
    tokens = [_length(row) for row in rows]
    teach = [row.state in (State.TRAINED, State.EXPIRED) for row in rows]
    problems = [row.problem or "" for row in rows]
    return Lengths(
        sampled=float(np.mean(tokens)),
        trained=float(np.mean([length for length, ours in zip(tokens, trained, strict=True) if ours])),
        by_design=gap(tokens, teach, [True] * len(rows), problems),
        by_staleness=gap(tokens, trained, teach, problems) if teach != trained else None,
    )


def _in_state(rows: Sequence[Row]) -> InState:
    sampled = [row for row in rows if row.samples and row.tokens is not None]
    return InState(
        groups=len(rows),
        samples=sum(row.samples or 0 for row in sampled),
        tokens_per_sample=float(np.mean([_length(row) for row in sampled])) if sampled else None,
    )


def _length(row: Row) -> float:
    return (row.tokens or 0) / (row.samples or 1)


def _ages(rows: Sequence[Row]) -> list[int]:
    return [age for row in rows if (age := staleness(row)) is not None]


def _ages_by_step(trained: Sequence[Row]) -> list[Ages]:
    steps = list(by_step(trained).items())
    a_line = -(-len(steps) // RANGES) or 1
    lines = []
    for start in range(0, len(steps), a_line):
        part = steps[start : start + a_line]
        if ages := _ages([row for _, rows in part for row in rows]):
            mean = sum(ages) / len(ages)
            lines.append(Ages(first=part[0][0], last=part[-1][0], groups=len(ages), mean=mean, max=max(ages)))
    return lines
