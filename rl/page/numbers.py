"""The records of a run as columns of numbers: what was appended since the last look is read, and no step is kept whole.

A line that is no record of this version is left out, and said: a run is shown whatever has become of its files.
"""

import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import attrgetter
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec

from rl.core.metrics import STEP
from rl.core.rundir import key_of
from rl.observe.readings import Record

NAMES = tuple(metric.name for metric in STEP if metric.name not in ("step", "by_age"))
"""What is kept of a step."""
LONGEST = 1 << 20
"""Bytes of a line; a record has some thousand."""
LATEST = 1 << 53
"""Steps are below it, so that a script has each of them."""
HEAD = 100
"""Bytes by which a file is known: its first record says to the millisecond when it was made."""
AT_ONCE = 1_000
"""Steps that are put into columns together."""
RESTARTS, LONGEST_WORDS = 100, 500
"""Those that are kept, the newest ones; and characters of why."""
_OF_EVALUATION = ("kind", "time", "set", "step", "summary")


class Column:
    """One number, of the steps in which it was measured: 16 bytes each."""

    def __init__(self) -> None:
        self.steps = array("q")
        """Rising."""
        self.values = array("d")

    def __len__(self) -> int:
        return len(self.steps)

    def extend(self, steps: Sequence[int], values: Sequence[float | None]) -> None:
        """Adds later steps; None was not measured."""
        if None in values:
            measured = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
            steps, values = [step for step, _ in measured], [value for _, value in measured]
        self.steps.extend(steps)
        self.values.extend(cast(Sequence[float], values))

    def cut(self, step: int) -> None:
        """Takes away this step and all after it."""
        kept = bisect_left(self.steps, step)
        del self.steps[kept:], self.values[kept:]


class _Estimate(msgspec.Struct):
    value: float
    low: float
    high: float


_Step = msgspec.defstruct(
    "_Step",
    [
        ("kind", Literal["step"]),
        ("step", Annotated[int, msgspec.Meta(ge=0, lt=LATEST)]),
        ("time", str, ""),
        ("by_age", dict[str, dict[str, float | None]], {}),
        *((name, float | None, None) for name in NAMES),
    ],
)
_step: Callable[[bytes], Any] = msgspec.json.Decoder(_Step).decode
_values = attrgetter(*NAMES)


class Numbers:
    """What `metrics.jsonl` says, as of the last `read`. Steps that a resume has not made again are not there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self._offset, self._head, self._last = 0, b"", -1
        self._pending: list[tuple[Any, ...]] = []
        self.columns = {name: Column() for name in NAMES}
        self.steps = array("q")
        """That were made, rising."""
        self.by_age: dict[str, dict[str, float | None]] = {}
        """The numbers of each age of the last step."""
        self.evals: dict[tuple[str, int], Record] = {}
        """(set, step) → the record of the evaluation."""
        self.published: Record = {}
        """The newest version's; empty before the first."""
        self.restarts: list[dict[str, str]] = []
        self.newest = ""
        """When the last record was made."""
        self.rewinds = 0
        """How often steps were taken away."""
        self.left_out = 0
        """Lines that are no records."""
        self.why_left_out = ""
        """The first of them."""

    @property
    def step(self) -> int:
        """The last one that was made; 0 before the first."""
        return self.steps[-1] if self.steps else 0

    @property
    def bytes_kept(self) -> int:
        """By the columns, which are most of it."""
        return 16 * sum(len(column) for column in self.columns.values())

    def read(self) -> bool:
        """Takes in what is new; whether there was anything. Where there is no file, there is nothing new."""
        before = self._offset
        if not isfile(self._file):
            return False
        try:
            with self._file.open("rb") as file:
                head = file.read(HEAD)
                if not head.startswith(self._head) or os.fstat(file.fileno()).st_size < self._offset:
                    self._begin()  # it is another file, or was cut
                self._head = head
                file.seek(self._offset)
                while line := file.readline(LONGEST):
                    if not line.endswith(b"\n") and len(line) < LONGEST:
                        break  # it is still being written
                    self._offset += len(line)
                    self._take(line)
        except OSError:
            return False
        finally:
            self._enter()
        return self._offset != before

    def _take(self, line: bytes) -> None:
        try:
            record = _step(line)
        except (ValueError, RecursionError):
            self._take_other(line)
        else:
            self._add(record.step, _values(record), record.by_age)
            self.newest = record.time

    def _take_other(self, line: bytes) -> None:
        """A record of another kind, or a step with values that only Python's own JSON knows: NaN and Infinity."""
        try:
            record = json.loads(line)
            kind, step, _ = key_of(record)
            if type(step) is not int or not 0 <= step < LATEST:
                raise ValueError(f"{step!r} is no step")
            if kind == "step":
                self._add(step, [_number(record.get(name)) for name in NAMES], {})
            elif kind == "eval":
                _check_evaluation(record)
                self.evals[record["set"], step] = {name: record.get(name) for name in _OF_EVALUATION}
            elif kind == "publish":
                self.published = {name: record.get(name) for name in ("step", "logprob_gap", "noise")}
            elif kind == "restart":
                told = {name: str(record.get(name, ""))[:LONGEST_WORDS] for name in ("time", "step", "worker", "why")}
                self.restarts = [*self.restarts[1 - RESTARTS :], told]
            self.newest = str(record.get("time", ""))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            self.left_out += 1
            self.why_left_out = self.why_left_out or f"{type(error).__name__}: {error}"[:200]

    def _add(self, step: int, values: Sequence[float | None], by_age: dict[str, Any]) -> None:
        if step <= self._last:  # a resume went back to before it
            self._enter()
            self.rewinds += 1
            del self.steps[bisect_left(self.steps, step) :]
            for column in self.columns.values():
                column.cut(step)
        self._last, self.by_age = step, by_age
        self._pending.append((step, *values))
        if len(self._pending) == AT_ONCE:
            self._enter()

    def _enter(self) -> None:
        """Puts what was read into the columns, all of it at once: one by one takes four times as long."""
        if self._pending:
            steps, *columns = zip(*self._pending, strict=True)
            self._pending.clear()
            self.steps.extend(steps)
            for column, values in zip(self.columns.values(), columns, strict=True):
                column.extend(steps, values)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _check_evaluation(record: Record) -> None:
    """Raises ValueError or KeyError where it is not as this version's are."""
    summary = msgspec.convert(record["summary"], dict[str, _Estimate | None])
    if not isinstance(record["set"], str) or "pass@1" not in summary:
        raise ValueError("an evaluation without a set or pass@1")
    record["set"].encode()  # it is the name of a folder, too
