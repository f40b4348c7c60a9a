"""What a sweep says in the terminal: a bar over the steps of all runs, and a line for each event."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rl.observe.readings import clock
from rl.study.sweepdir import Entry


class SweepConsole:
    """Without a terminal the bar is left out and the lines stay."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            expand=True,
            disable=not self._console.is_interactive,
        )
        self._task = self._progress.add_task("starting", total=None, left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def show(self, going: Mapping[str, int], done: int, total: int, left_s: float | None) -> None:
        """Args:
        going: the runs that go on, each with its newest step.
        done: steps made in all runs, of `total`.
        left_s: until the end, as far as it is known.
        """
        what = "  ".join(f"{name} {step}" for name, step in going.items())
        left = f"{clock(left_s)} left" if left_s is not None else ""
        self._progress.update(self._task, description=what or "starting", completed=done, total=total, left=left)


def status_table(entries: Sequence[Entry]) -> str:
    """A line a run: how it ended, and why where it did not make all its steps."""
    width = max(len(entry.name) for entry in entries)
    return "\n".join(f"{entry.name:{width}}  {entry.status:8}  {entry.why}".rstrip() for entry in entries)
