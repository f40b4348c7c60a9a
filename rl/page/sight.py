"""A run as the page knows it: what it is at one moment, and what is kept between two looks, which is little."""

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from os.path import getsize, isfile
from threading import RLock
from time import monotonic

from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import LedgerError, UsageError
from rl.core.rundir import RunDir, best_evaluation
from rl.core.stopping import Ending, ending
from rl.evaluate.result import EvalResult
from rl.evaluate.stats import Difference
from rl.observe.console import DIAGNOSE_EVERY
from rl.observe.findings import Finding, Groups, compared
from rl.observe.readings import RECENT, Record, seconds_left
from rl.observe.rules import findings, silence
from rl.page.numbers import Column, Numbers
from rl.page.shelf import Now, Shelf
from rl.study.runs import Curve, Evaluated, Status, StudyRun

LARGEST_EVALUATION = 32 << 20
"""Bytes of the file of an evaluation that is read at all: one of 2,000 questions has a tenth of it."""
REST = 10
"""A ledger is left alone for so many times what it took to ask it."""
Key = tuple[str, int]
"""Of an evaluation: set and step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A run at one moment. What cannot be read is None or empty, and a notice says why."""

    config: TrainConfig | None
    sources: dict[str, str]
    """Where each value of the configuration is from."""
    running: bool
    """Whether a supervisor on this machine holds it."""
    ended: Ending | None
    """Why it is at its end, if it is."""
    quiet_s: float | None
    """Since the newest record."""
    spent_s: float
    """In the steps that were made."""
    left_s: float | None
    """Of a run in progress, until it ends by itself; None where that cannot be told."""
    findings: list[Finding]
    silence: str | None
    """A word on a run in progress that has logged nothing for too long."""
    gains: dict[Key, Difference]
    """pass@1 less that of the set's first evaluation, on the same questions: of the best and of the newest."""
    now: Now | None
    """What the ledger states."""
    notices: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Course:
    """What follows from what the steps took, and from their number."""

    config: TrainConfig | None = None
    ended: Ending | None = None
    spent_s: float = 0.0
    left_s: float | None = None
    recent: Sequence[Record] = ()
    """The last steps, with what each took."""


class Sight:
    """A run that is looked at again and again. Whoever uses it, or its numbers, holds its lock meanwhile."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.lock = run, RLock()
        self.numbers = Numbers(run.metrics_file)
        self._course = _Course()
        self._diagnosed: object = None
        self._findings: list[Finding] = []
        self._gains: dict[Key, Difference] = {}
        self._of_evaluations: list[str] = []
        self._stated: Now | None = None
        self._not_stated: list[str] = []
        self._ask_again = 0.0

    def look(self) -> Look:
        """What there is now; it reads what is new, and the run may go on meanwhile."""
        notices: list[str] = []
        config, sources = self.config(notices)
        if self.numbers.read() or config != self._course.config:
            self._course = _course(self.numbers, config)
        if self.numbers.left_out:
            n, why = self.numbers.left_out, self.numbers.why_left_out
            notices.append(f"{n} line{'s' if n > 1 else ''} of metrics.jsonl cannot be read and are left out: {why}")
        running, ended = self.run.in_progress, self._course.ended
        now = self._now(config, notices, running=running) if config else None
        if config:
            self._diagnose(config, over=ended is not None and not running, now=now)
        quiet_s, goes_on = _since(self.numbers.newest), running and ended is None
        return Look(
            config=config,
            sources=sources,
            running=running,
            ended=ended,
            quiet_s=quiet_s,
            spent_s=self._course.spent_s,
            left_s=self._course.left_s if goes_on else None,
            findings=self._findings,
            silence=silence(self._course.recent, quiet_s) if goes_on and quiet_s is not None else None,
            gains=self._gains,
            now=now,
            notices=[*notices, *self._of_evaluations],
        )

    def config(self, notices: list[str]) -> tuple[TrainConfig | None, dict[str, str]]:
        """(the configuration, where each value is from); None, and another notice, where it cannot be read."""
        try:
            return self.run.config(), self.run.sources()
        except (UsageError, OSError, ValueError, TypeError, RecursionError) as error:
            notices.append(_sentence(error))
            return None, {}

    def _now(self, config: TrainConfig, notices: list[str], *, running: bool) -> Now | None:
        """What the ledger states. A database that takes long is not asked each time: most of the time it is at rest."""
        began = monotonic()
        if began >= self._ask_again or (self._stated is not None and not running):
            self._stated, self._not_stated = None, []
            try:
                with closing(Shelf(self.run.buffer_url)) as shelf:
                    self._stated = shelf.now(config.batch // config.group_size)
            except (UsageError, LedgerError) as error:
                self._not_stated = [_sentence(error)]
            self._ask_again = monotonic() + REST * (monotonic() - began)
        notices += self._not_stated
        return self._stated

    def _diagnose(self, config: TrainConfig, *, over: bool, now: Now | None) -> None:
        """Looks for what is wrong, as often as the console of a run does; that reads evaluations, and forgets them."""
        evals = self.numbers.evals
        at = (self.numbers.rewinds, self.numbers.step // DIAGNOSE_EVERY, over, [r.get("time") for r in evals.values()])
        if at == self._diagnosed:
            return
        self._diagnosed, self._gains, self._of_evaluations = at, {}, []
        results = dict(self._telling())
        for (name, step), result in results.items():
            base = next(own for (set, _), own in results.items() if set == name)
            comparison = compared(base, result) if result is not base else None
            if comparison and comparison.pass_at_1:
                self._gains[name, step] = comparison.pass_at_1
        heldout = [result for (name, _), result in results.items() if name == HELDOUT]
        measured = [Evaluated(result=result, samples=None, tokens=None, seconds=None) for result in heldout]
        columns = {name: column for name, column in self.numbers.columns.items() if len(column)}
        run = StudyRun(
            name="",
            path=self.run.root,
            settings=config.model_dump(mode="json"),
            status=Status.DONE if over else Status.RUNNING,
            curves={name: Curve(steps=list(c.steps), values=list(c.values)) for name, c in columns.items()},
            evaluations={HELDOUT: measured} if measured else {},
        )
        counts = {state.value: n for state, n in now.counts.items()} if now else {}
        self._findings = findings(run, Groups(counts=counts) if counts else None)

    def _telling(self) -> Iterator[tuple[Key, EvalResult]]:
        """Of each set the first, the best and the newest evaluation, as far as they can be read, in that order."""
        evals = self.numbers.evals
        best = best_evaluation(evals.values())
        for set in {name: None for name, _ in evals}:
            steps = sorted(step for name, step in evals if name == set)
            telling = {steps[0], steps[-1], *([best["step"]] if best and set == HELDOUT else [])}
            for step in sorted(telling):
                try:
                    check_size(self.run, set, step)
                    yield (set, step), EvalResult.load(self.run.eval_file(set, step))
                except UsageError as error:
                    self._of_evaluations.append(_sentence(error))


def check_size(run: RunDir, set: str, step: int) -> None:
    """Raises:
    UsageError: the evaluation is not there, or too large to be read for a page.
    """
    file = run.eval_file(set, step)
    if not isfile(file):
        raise UsageError(f"there is no evaluation of {set} at step {step}")
    with suppress(OSError):
        if (size := getsize(file)) > LARGEST_EVALUATION:
            fix = f"python -m rl.show {run.root.name} --set {set} --step {step} shows it in the terminal"
            raise UsageError(f"the evaluation of {set} at step {step} has {size / 1e6:,.0f} MB", fix=fix)


def _course(numbers: Numbers, config: TrainConfig | None) -> _Course:
    """What was not logged of a step, or is not finite, counts as nothing."""
    seconds, tokens = _finite(numbers.columns["step_s"]), _finite(numbers.columns["tokens"])
    steps: list[Record] = [
        {"kind": "step", "step": step, "step_s": seconds.get(step, 0.0), "tokens": int(tokens.get(step, 0))}
        for step in numbers.steps
    ]
    left_s = None
    with suppress(ZeroDivisionError):  # a step without a token
        left_s = seconds_left(steps, config) if config else None
    return _Course(
        config=config,
        ended=ending(config, [*steps, *numbers.evals.values()]) if config else None,
        spent_s=sum(seconds.values()),
        left_s=left_s,
        recent=steps[-RECENT:],
    )


def _finite(column: Column) -> dict[int, float]:
    return {step: value for step, value in zip(column.steps, column.values, strict=True) if isfinite(value)}


def _since(moment: str) -> float | None:
    """Seconds; None where it is no moment."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return None


def _sentence(error: BaseException) -> str:
    fix = f"; {error.fix}" if isinstance(error, UsageError | LedgerError) and error.fix else ""
    return f"{error}{fix}"
