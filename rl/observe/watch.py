"""The view of a run: where it is, how its numbers went, its newest evaluations, and what looks wrong, in words."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import OTHER_VERSION, RunDir
from rl.core.stopping import Ending, ending
from rl.evaluate.result import EvalResult
from rl.observe.console import MetricsTail
from rl.observe.readings import READINGS, RECENT, Record, clock, headline, seconds_left
from rl.observe.rules import findings_so_far, silence, telling_evaluations

REFRESH_S = 1.0
EVALUATIONS = 3
"""Shown of each set: the first, and the newest."""
BLOCKS = "▁▂▃▄▅▆▇█"
AGE_ROWS = (("clip", "clipped", "{:.1%}"), ("ess", "ess", "{:.0%}"), ("mismatch", "mismatch_kl", "{:.0e}"))
"""Label, field and form of what is shown by age."""


# ---- what is known of a run


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A run at one moment."""

    config: TrainConfig
    running: bool
    """Whether a supervisor on this machine holds it."""
    steps: list[Record]
    """In order, without those that a resume has not made again."""
    evals: dict[str, list[Record]]
    """By set, the held-out problems first; each in the order of steps."""
    evaluations: list[EvalResult]
    """Of the held-out problems, those that tell most."""
    groups: dict[str, int]
    """How many are in each state."""
    quiet_s: float | None
    """Since the newest record; None before the first."""
    ended: Ending | None
    """Why it is at its end, if it is."""

    @property
    def step(self) -> int:
        return int(self.steps[-1]["step"]) if self.steps else 0


class Watched:
    """A run directory that is looked at again and again; only what was added is read.

    Raises:
        UsageError: it is no run, or its records cannot be read.
    """

    def __init__(self, run: RunDir) -> None:
        run.config()
        self._run = run
        self._tail = MetricsTail(run.metrics_file, start=0)
        self._steps: dict[int, Record] = {}
        self._evals: dict[tuple[str, int], Record] = {}
        self._newest: Record | None = None
        self._evaluations: list[EvalResult] = []

    def look(self) -> Look:
        try:
            return self._look()
        except (ValueError, KeyError) as error:
            raise UsageError(f"{self._run.metrics_file} cannot be read: {error!r}", fix=OTHER_VERSION) from None

    def _look(self) -> Look:
        for record in self._tail.records():
            self._newest = record
            if record["kind"] == "step":
                while self._steps and next(reversed(self._steps)) >= record["step"]:  # a resume went back to before it
                    self._steps.popitem()
                self._steps[record["step"]] = record
            elif record["kind"] == "eval":
                self._evals[record["set"], record["step"]] = record
                self._evaluations = []
        if self._evals and not self._evaluations:
            self._evaluations = telling_evaluations(self._run, self._evals.values())
        config, steps = self._run.config(), list(self._steps.values())
        sets = sorted({name for name, _ in self._evals}, key=lambda name: (name != HELDOUT, name))
        return Look(
            config=config,
            running=self._run.in_progress,
            steps=steps,
            evals={name: [r for (s, _), r in sorted(self._evals.items()) if s == name] for name in sets},
            evaluations=self._evaluations,
            groups=_groups(self._run),
            quiet_s=_since(self._newest["time"]) if self._newest else None,
            ended=ending(config, [*steps, *self._evals.values()]),
        )

    def looks(self) -> Iterator[Look]:
        """One look after the other until the run is over, its end included."""
        while (look := self.look()).running:
            yield look
            time.sleep(REFRESH_S)
        yield look


def _groups(run: RunDir) -> dict[str, int]:
    from rl.buffer.history import History  # SQLAlchemy: `--explain` does not wait for it

    try:
        with closing(History(run.buffer_url)) as history:
            return {state.value: n for state, n in history.counts().items() if n}
    except UsageError:
        return {}


def _since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


# ---- how it is shown


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of a number in `width` characters or fewer: the means of equal stretches, from least to most.

    Example: ``sparkline([1, 2, 3, 3], width=2)`` is ``▁█``
    """
    n = min(width, len(values))
    edges = [i * len(values) // n for i in range(n + 1)] if n else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    if low == high:
        return BLOCKS[0] * n
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)


def view(run: RunDir, look: Look, width: int, *, readings: int = len(READINGS), by_age: bool = True) -> RenderableType:
    """What there is to see, for a terminal of that width.

    Args:
        readings: how many are shown, the most important first.
        by_age: show the last step by the staleness of its tokens.
    """
    return Group(*_parts(run, look, width, readings, by_age))


def fitted(console: Console, run: RunDir, look: Look) -> RenderableType:
    """The view with as much as fits into the height of a terminal."""
    for by_age in (True, False):
        whole = view(run, look, console.width, by_age=by_age)
        over = len(console.render_lines(whole)) - console.height
        if over <= 0:
            return whole
    return view(run, look, console.width, readings=max(1, len(READINGS) - over), by_age=False)


def _parts(run: RunDir, look: Look, width: int, readings: int, by_age: bool) -> Iterator[RenderableType]:
    config = look.config
    yield Text(str(run.root), style="bold")
    yield Text(_standing(look))
    settings = f"{config.model} on {config.problems}, buffer {config.buffer}, batch {config.batch}, "
    yield Text(settings + f"group {config.group_size}, lr {config.lr:g}, lora rank {config.lora_rank}", style="dim")
    progress = Table.grid(padding=(0, 2), expand=True)
    progress.add_column(no_wrap=True)
    progress.add_column(ratio=1)
    progress.add_column(no_wrap=True)
    spent = sum(r["step_s"] for r in look.steps)
    left = seconds_left(look.steps, config)
    times = f"{clock(spent)} trained" + (f", {clock(left)} left" if look.running and left else "")
    progress.add_row(f"step {look.step}/{config.steps}", ProgressBar(config.steps, look.step), times)
    yield progress
    if look.steps:
        yield Text(_coverage(look.steps[-1]), style="dim")
        for concern in _concerns(look):
            yield Text(f"! {concern}", style="bold yellow")
        yield ""
        yield _curves(look.steps, width, readings)
        if by_age:
            yield ""
            yield _by_age(look.steps[-1])
    if look.evals:
        yield ""
        yield _evaluations(look.evals)
    if look.groups:
        yield ""
        yield Text("groups  " + ", ".join(f"{n} {state}" for state, n in look.groups.items()))


def _concerns(look: Look) -> list[str]:
    found = [finding.line for finding in findings_so_far(look.config, look.steps, look.evaluations, look.groups)]
    quiet_s = look.quiet_s if look.running and not look.ended else None
    word = silence(look.steps, quiet_s) if quiet_s is not None else None
    return [*found, word] if word else found


def _standing(look: Look) -> str:
    if look.running and look.ended:
        return f"ending: {look.ended.reason}; the last evaluations are made"
    if look.running:
        return "running" if look.steps else "starting"
    if look.ended:
        return f"ended: {look.ended.reason}"
    ago = f", {clock(look.quiet_s)} ago" if look.quiet_s is not None else ""
    return f"not running on this machine; last seen at step {look.step}{ago}"


def _coverage(record: Record) -> str:
    return f"{record['epoch']:.3g} passes over the problems, {record['coverage']:.1%} of them seen"


def _curves(steps: Sequence[Record], width: int, readings: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("")
    table.add_column("now", justify="right")
    table.add_column(f"last {min(RECENT, len(steps))}", justify="right")
    table.add_column("least", justify="right")
    table.add_column("most", justify="right")
    table.add_column(f"steps {steps[0]['step']} to {steps[-1]['step']}", no_wrap=True)
    for reading in READINGS[:readings]:
        values = reading.measured(steps)
        if not values:
            continue
        recent = values[-RECENT:]
        numbers = (values[-1], sum(recent) / len(recent), min(values), max(values))
        table.add_row(reading.label, *map(reading.form.format, numbers), sparkline(values, max(10, width - 48)))
    return table


def _by_age(record: Record) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("now, stale")
    for age in record["by_age"]:
        table.add_column(age, justify="right")
    for label, name, form in AGE_ROWS:
        table.add_row(label, *(form.format(of_age[name]) for of_age in record["by_age"].values()))
    return table


def _evaluations(evals: dict[str, list[Record]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    names = list(headline(next(iter(evals.values()))[-1]["summary"]))
    for head in ("evaluated", "step", *names):
        table.add_column(head, justify="right" if head == "step" else "left")
    for name, records in evals.items():
        shown = records if len(records) <= EVALUATIONS else [records[0], *records[1 - EVALUATIONS :]]
        for i, record in enumerate(shown):
            cells = [_interval(estimate) for estimate in headline(record["summary"]).values()]
            table.add_row("" if i else name, str(record["step"]), *cells)
    return table


def _interval(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


# ---- the command


def watch(run: RunDir, *, once: bool) -> None:
    """Shows a run until it ends; only once where told to, or where there is no terminal.

    Raises:
        UsageError: it is no run.
    """
    console = Console(highlight=False, markup=False)
    watched = Watched(run)
    if once or not console.is_interactive:
        console.print(view(run, watched.look(), console.width))
        return
    with Live(console=console, auto_refresh=False) as live:
        for look in watched.looks():
            live.update(fitted(console, run, look), refresh=True)
