"""What a run says in the terminal: a progress bar, and one line of about eight numbers a step."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class MetricsTail:
    """The records that were appended to `metrics.jsonl` since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def records(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open() as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith("\n"):  # a line without an end is still being written
                self._offset = file.tell()
                yield json.loads(line)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is moved by calling it with (done, of); nothing without a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class TrainConsole:
    """Follows the records of a run. Without a terminal the bar is left out and the lines stay."""

    def __init__(self, steps: int, done: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=steps, completed=done)
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def silent_s(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._said

    def say(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text, markup=False)

    def status(self, text: str) -> None:
        """What the run is doing, beside the bar."""
        self._progress.update(self._task, description=text)

    def show(self, record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            self._progress.update(self._task, description="training", completed=record["step"])
            self.say(step_line(record, total=int(self._progress.tasks[0].total or 0)))
        elif record["kind"] == "eval":
            self.say(eval_line(record))


def step_line(record: dict[str, Any], total: int) -> str:
    """Example: ``step  42/300  reward 0.61  len 18.2 (0% cut)  signal 80%  stale 3.2  …  0.31 s (wait 12%)``"""
    wait = record["wait_s"] / record["step_s"]
    return (
        f"step {record['step']:>{len(str(total))}}/{total}  reward {record['reward']:.2f}  "
        f"len {record['length']:.1f} ({record['truncated']:.0%} cut)  signal {1 - record['no_signal']:.0%}  "
        f"stale {record['staleness_mean']:.1f}  clip {record['clipped_low'] + record['clipped_high']:.1%}  "
        f"grad {record['grad_norm']:.2f}  mismatch_kl {record['mismatch_kl']:.0e}  "
        f"{record['step_s']:.2f} s (wait {wait:.0%})"
    )


def eval_line(record: dict[str, Any]) -> str:
    """Example: ``eval at step 100: pass@1 0.412 [0.384, 0.441]  pass@8 0.742 [0.705, 0.776]  maj@8 …``"""
    summary: dict[str, Any] = record["summary"]
    passes = [name for name in summary if name.startswith("pass@")]
    majority = [name for name in summary if name.startswith("maj@")]
    shown = [name for name in (passes[0], passes[-1], *majority) if summary[name]]
    numbers = "  ".join(
        f"{name} {summary[name]['value']:.3f} [{summary[name]['low']:.3f}, {summary[name]['high']:.3f}]"
        for name in shown
    )
    return f"eval at step {record['step']}: {numbers}"
