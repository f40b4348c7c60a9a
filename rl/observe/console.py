"""What a run says in the terminal: a progress bar, and one line of about ten numbers a step."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import OTHER_VERSION, RunDir, key_of
from rl.observe.readings import Record, clock, eval_line, seconds_left, step_line
from rl.observe.rules import findings_so_far, patience_s, telling_evaluations

DIAGNOSE_EVERY = 10
"""Steps between two looks for what is wrong; each evaluation is followed by one, too."""


class MetricsTail:
    """The records that were appended to `metrics.jsonl` since the last look.

    Args:
        start: byte to begin at; None for the end of what is there now.
    """

    def __init__(self, path: Path, start: int | None = None) -> None:
        self._path = path
        self._offset = start if start is not None else path.stat().st_size if path.exists() else 0

    def records(self) -> Iterator[Record]:
        """Raises:
        UsageError: a line is no record; the next look begins after it.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith(b"\n"):  # a line without an end is still being written
                self._offset = file.tell()
                yield self._record(line)

    def _record(self, line: bytes) -> Record:
        try:
            record: Record = json.loads(line, object_pairs_hook=_with_shared_names)
            key_of(record)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._path} cannot be read: {error!r}", fix=OTHER_VERSION) from None
        return record


def _with_shared_names(pairs: Sequence[tuple[str, Any]]) -> Record:
    """A long run's records have the same names, which are most of their memory."""
    return {sys.intern(name): value for name, value in pairs}


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    console = Console()
    return console.width if console.is_terminal else None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is moved by calling it with (done, of); nothing without a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class TrainConsole:
    """Follows the records of a run. Without a terminal the bar is left out and the lines stay.

    Args:
        done: steps that were made before.
        past: what was logged before.
    """

    def __init__(self, run: RunDir, config: TrainConfig, done: int, past: Sequence[Record]) -> None:
        self._run, self._config = run, config
        self._evals = [record for record in past if record["kind"] == "eval"]
        self._evaluations = telling_evaluations(run, self._evals)
        self._found: set[str] = set()
        self._steps = [record for record in past if record["kind"] == "step" and record["step"] <= done]
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            expand=True,
            disable=not self._console.is_interactive,
        )
        self._task = self._progress.add_task("starting", total=config.steps, completed=done, left="")
        self._since: float | None = None  # the newest step, or the first version that is served
        self._patience_s = patience_s(self._steps)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def overdue(self) -> bool:
        """Whether the next step takes unusually long; until a version is served there can be none."""
        return self._silent_s > self._patience_s

    @property
    def _silent_s(self) -> float:
        return time.monotonic() - self._since if self._since is not None else 0.0

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def say_overdue(self, books: str) -> None:
        """Says that no step was made, and why that may be; and is silent for twice as long as before."""
        self._patience_s = 2 * self._silent_s
        self.say(f"no step for {self._silent_s:.0f} s; groups so far: {books}")

    def status(self, text: str) -> None:
        """What the run is doing, beside the bar."""
        self._progress.update(self._task, description=text)

    def show(self, record: Record) -> None:
        width = self._console.width if self._console.is_terminal else None
        if record["kind"] in ("publish", "step"):
            self._since = time.monotonic()
        if record["kind"] == "step":
            while self._steps and self._steps[-1]["step"] >= record["step"]:  # another learner makes them again
                self._steps.pop()
            self._steps.append(record)
            self._patience_s = patience_s(self._steps)
            left = clock(seconds_left(self._steps, self._config) or 0)
            self._progress.update(self._task, description="training", completed=record["step"], left=f"{left} left")
            self.say(step_line(record, self._config.steps, width))
            if record["step"] % DIAGNOSE_EVERY == 0:
                self._diagnose()
        elif record["kind"] == "eval":
            self.say(eval_line(record, width))
            self._evals.append(record)
            self._evaluations = telling_evaluations(self._run, self._evals)
            self._diagnose()

    def _diagnose(self) -> None:
        """Says what is wrong, each thing once."""
        for finding in findings_so_far(self._config, self._steps, self._evaluations):
            if finding.rule not in self._found:
                self._found.add(finding.rule)
                self.say(f"! {finding.line}")
