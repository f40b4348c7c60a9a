"""The runs of a folder as the page keeps them: few are known in detail, of the others a row."""

from collections import OrderedDict
from threading import Lock
from typing import Any

from rl.core import cli
from rl.core.errors import UsageError
from rl.page import words
from rl.page.curves import curves
from rl.page.folder import Folder, Found
from rl.page.sight import Look, Sight
from rl.study.runs import NOT_COMPUTED
from rl.study.words import counted, short

SIGHTS, SIGHTS_BYTES = 32, 64 << 20
"""Runs that are known in detail, and the bytes of their numbers: of a run of 10,000 steps they are 4 MB."""
ROWS = 5_000
WARM = 4
"""Runs that are read at the start."""
SPARK = 48
"""Points of a row's small curve."""
SETTINGS = 6
"""Of a row, where more than these differ from the defaults."""
Row = dict[str, str]


class Board:
    """Hands out sights, and rows; it forgets those that were asked for the longest time ago."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._lock = Lock()
        self._sights: OrderedDict[str, Sight] = OrderedDict()
        self._rows: OrderedDict[str, tuple[object, Row]] = OrderedDict()

    @property
    def sights(self) -> int:
        return len(self._sights)

    def sight(self, name: str) -> Sight:
        """Raises:
        UsageError: there is no such run, or it reaches out of the folder.
        """
        run = self.folder.run(name)
        with self._lock:
            sight = self._sights.pop(name, None) or Sight(run)
            self._sights[name] = sight
            while len(self._sights) > 1 and (len(self._sights) > SIGHTS or self._bytes() > SIGHTS_BYTES):
                self._sights.popitem(last=False)
        return sight

    def warm(self) -> None:
        """Reads the newest runs before anybody waits for it."""
        for found in self.folder.found()[:WARM]:
            self.row(found, read=True)

    def _bytes(self) -> int:
        return sum(sight.numbers.bytes_kept for sight in self._sights.values())

    def row(self, found: Found, *, read: bool) -> Row:
        """A run as the list has it.

        Args:
            read: whether there is time to read it, where it has changed.
        """
        try:
            run = self.folder.run(found.name)
        except UsageError as error:
            return _row(found.name, word="stopped", standing=str(error))
        stamp = (found.changed, run.in_progress)
        with self._lock:
            known = self._rows.get(found.name)
        if known and (known[0] == stamp or not read):
            return known[1]
        if not read:
            return _row(found.name, standing="not read yet")
        sight = self.sight(found.name)
        with sight.lock:
            row = _row_of(found.name, sight)
        with self._lock:
            self._rows[found.name] = stamp, row
            while len(self._rows) > ROWS:
                self._rows.popitem(last=False)
        return row


def _row(name: str, **known: str) -> Row:
    empty = dict.fromkeys(("about", "word", "standing", "step", "pass", "reward", "points", "findings"), "")
    return {**empty, "key": name, **known}


def _row_of(name: str, sight: Sight) -> Row:
    look, numbers = sight.look(), sight.numbers
    word, standing = words.standing(look, numbers.step)
    of = f" / {look.config.steps:,}" if look.config else ""
    newest, reward = words.newest_evaluation(numbers), words.recent(numbers, "reward")
    found = [finding.what for finding in look.findings]
    return _row(
        name,
        about=_settings(look),
        word=word,
        standing=standing,
        step=f"{numbers.step:,}{of}",
        **{"pass": words.estimate(newest["summary"]["pass@1"]) if newest else ""},
        reward="" if reward is None else f"{reward:.3g}",
        points=_spark(curves(numbers)["series"].get("reward")),
        findings="; ".join(found + [counted(len(look.notices), "notice")] * bool(look.notices)),
    )


def _settings(look: Look) -> str:
    """Those that are not the defaults."""
    if look.config is None:
        return ""
    changed = cli.changed(look.config.model_dump(mode="json"))
    told = [f"{name} {short(value)}" for name, value in changed.items() if name not in NOT_COMPUTED]
    more = f", {len(told) - SETTINGS} more" if len(told) > SETTINGS else ""
    return ", ".join(told[:SETTINGS]) + more


def _spark(series: dict[str, Any] | None) -> str:
    """The trend as the points of a line, within 100 × 24."""
    values = [value for value in series["mean"] if value == value] if series else []
    values = values[:: max(1, len(values) // SPARK)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if len(values) < 2 or not 0 < high - low < float("inf"):
        return ""
    across = 100 / (len(values) - 1)
    return " ".join(f"{across * i:.1f},{23 - 22 * (y - low) / (high - low):.1f}" for i, y in enumerate(values))
