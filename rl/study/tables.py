"""Tables of other tools as runs: what a column is by its name, and a cell by its text.

Three shapes are known. Which one a table has is decided by its columns:

    a step, and metrics           one run, or several where a column names them (`run`, `name`, `experiment`)
    a step, and no known metric   one column for each run, all of one metric: `Step | Batch 64 | Buffer 256`
    no step                       one row for each run: its settings and its final results

A column is a metric's where its name has no word but those of `RESULTS`, `TRAINING` and `QUALIFIERS`: `val loss`,
`rewards/mean` and `pass@1` are, `2x LR` and `Batch 64` are not. In a table without steps a rate is a setting.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from rl.core.cli import TRL_NAMES
from rl.core.config import TrainConfig
from rl.study.runs import Curve, StudyRun

Row = Mapping[str, Any]
"""Column → cell, as text or as JSON has it."""

RESULTS = frozenset("loss acc accuracy reward rewards pass perplexity ppl score f1 em bleu rouge correct".split())
"""What a run is made for. Where such a column has nothing but zeros and empty cells, its results were never read."""
TRAINING = frozenset("lr learning grad gradient norm kl entropy clip clipped length ess ratio throughput".split())
QUALIFIERS = frozenset(
    "train training val valid validation eval evaluation test heldout mean avg average median min max std final best "
    "last rate total current policy value completion completions tokens token advantage advantages fraction".split()
)
STEP = ("step", "global_step", "train_global_step", "_step", "iteration", "iter", "steps", "epoch")
"""Of several, the first here counts."""
NAME = ("run", "name", "experiment", "run_name", "exp", "config", "configuration", "id")
MINUTES = {"min": 1.0, "mins": 1.0, "minutes": 1.0, "s": 1 / 60, "sec": 1 / 60, "seconds": 1 / 60, "runtime": 1 / 60}
MINUTES |= {"h": 60.0, "hours": 60.0}
SETTINGS = {
    **TRL_NAMES,
    **{"batch_size": "batch", "train_batch_size": "batch", "buffer_size": "buffer", "model_name": "model"},
    **{"rank": "lora_rank", "r": "lora_rank", "alpha": "lora_alpha", "training_steps": "steps", "train_steps": "steps"},
    **{
        "gradient_clipping": "grad_clip",
        "clip_grad": "grad_clip",
        "dataset": "problems",
        "lr_scheduler_type": "schedule",
    },
}
"""Other tools' names of what `TrainConfig` has."""
EMPTY = frozenset(("", "n/a", "na", "none", "null", "-", "–", "—", "--"))
INFINITE = re.compile(r"([-+]?)(?:inf|infinity|∞|âˆž)", re.IGNORECASE)


def cell(value: Any) -> Any:
    """A number, None where there is nothing, or the text that it is.

    Example: ``cell("**12.5 %**") == 0.125``, ``cell("1,234") == 1234.0``, ``cell("∞") == inf``, ``cell("N/A") is None``
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if not isinstance(value, str):
        return _number(value)
    text = value.strip(" \t\r\n*`~")
    if text.casefold() in EMPTY:
        return None
    if infinite := INFINITE.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    share = text.endswith("%")
    plain = text.removesuffix("%").strip()
    plain = plain.replace(",", "") if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", plain) else plain
    if "_" in plain:  # 1_0 is a number to Python alone
        return text
    try:
        return float(Decimal(plain) / 100) if share else float(plain)
    except (ValueError, InvalidOperation, OverflowError):
        return text


def plain_name(column: str) -> str:
    """A column's name as one word, a setting's as ours.

    Example: ``plain_name("Val Loss") == "val_loss"``, ``plain_name("learning_rate") == "lr"``
    """
    plain = re.sub(r"[^a-z0-9@]+", "_", column.casefold()).strip("_")
    return SETTINGS.get(plain, plain)


def is_metric(column: str) -> bool:
    """Whether a column's name has only words of metrics, one of them more than a qualifier."""
    words = set(plain_name(column).split("_"))
    words = {re.sub(r"@\d+$", "", word) for word in words}
    return bool(words & (RESULTS | TRAINING)) and words <= RESULTS | TRAINING | QUALIFIERS


def runs_of(
    rows: Sequence[Row], path: Path, metric: str = "", settings: Mapping[str, Any] | None = None
) -> list[StudyRun]:
    """The runs of a table, in the order of their first appearance; none where it has no number.

    Args:
        metric: what the cells are where each column is a run; the file's name unless given.
        settings: of all runs.
    """
    columns = [column for column in dict.fromkeys(column for row in rows for column in row) if column.strip()]
    plain = {plain_name(column): column for column in reversed(columns)}
    step = next((plain[name] for name in STEP if name in plain and name != "steps"), None)
    shared = dict(settings or {})
    if step is None:
        return _rows_as_runs(rows, columns, path, shared)
    others = [column for column in columns if column != step]
    exported = [column for column in others if " - " in column and not column.endswith(("__MIN", "__MAX"))]
    if exported:  # of W&B: "run - metric", each with its __MIN and __MAX
        names = dict.fromkeys(column.rpartition(" - ")[0] for column in exported)
        of_run = {
            name: {c.rpartition(" - ")[2]: c for c in exported if c.rpartition(" - ")[0] == name} for name in names
        }
        return _unique([_by_step(rows, step, of, name, path, shared) for name, of in of_run.items()])
    if not any(map(is_metric, others)):
        of = metric or path.stem
        return _unique([_by_step(rows, step, {of: c}, c.strip(" *"), path, shared, placeholder=True) for c in others])
    name = next((plain[name] for name in NAME if name in plain), None)
    columns_of = {column: column for column in others if column != name}
    if name is None:
        return [_by_step(rows, step, columns_of, path.stem, path, shared)]
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(str(row.get(name) or "").strip(" *") or path.stem, []).append(row)
    return _unique([_by_step(own, step, columns_of, of, path, shared) for of, own in by_name.items()])


def _by_step(
    rows: Iterable[Row],
    step: str,
    columns: Mapping[str, str],
    name: str,
    path: Path,
    settings: dict[str, Any],
    *,
    placeholder: bool = False,
) -> StudyRun:
    """One run, whose rows are steps.

    Args:
        columns: metric → column.
        placeholder: a column of zeros has no data, whatever its name.
    """
    curves: dict[str, Curve] = {}
    why = []
    own = dict(settings)
    for metric, column in columns.items():
        at: dict[int, Any] = {}
        for row in rows:
            number = cell(row.get(step))
            if column in row and isinstance(number, float) and math.isfinite(number):
                at[int(number)] = cell(row[column])
        values = [at[number] for number in sorted(at)]
        if any(isinstance(value, str) for value in values) and not any(isinstance(value, float) for value in values):
            if len(texts := set(values)) == 1:
                own[plain_name(metric)] = texts.pop()
            continue
        numbers = [value if isinstance(value, float) else None for value in values]
        if (placeholder or is_result(metric)) and _is_placeholder(numbers):
            why.append(f"{column.strip(' *')}: {_nothing(numbers)}")
            numbers = [None] * len(numbers)
        if numbers:
            curves[plain_name(metric)] = Curve(steps=sorted(at), values=numbers)
    return StudyRun(name=name, path=path, settings=own, curves=curves, why="; ".join(why), ours=False)


def _rows_as_runs(rows: Sequence[Row], columns: Sequence[str], path: Path, shared: dict[str, Any]) -> list[StudyRun]:
    cells = {column: [cell(row.get(column)) for row in rows] for column in columns}
    results = [column for column in columns if _is_final(column, cells[column])]
    if not results:
        return []
    name = next((column for word in NAME for column in columns if plain_name(column) == word), None)
    never_read = {
        column: f"{column.strip(' *')}: {_nothing(cells[column])}"
        for column in results
        if is_result(column) and _is_placeholder(cells[column])
    }
    runs = []
    for i in range(len(rows)):
        finals: dict[str, float | None] = {}
        for column in results:
            value = cells[column][i] if column not in never_read else None
            title, factor = _as_minutes(plain_name(column))
            finals[title] = value * factor if isinstance(value, float) else None
        own = {
            plain_name(c): cells[c][i] for c in columns if c not in results and c != name and cells[c][i] is not None
        }
        settings = shared | {key: setting(key, value) for key, value in own.items()}
        called = str(cells[name][i]) if name is not None and cells[name][i] is not None else ""
        known = {key: value for key, value in own.items() if key in TrainConfig.model_fields} or own
        called = called or ", ".join(f"{key} {setting(key, value)}" for key, value in known.items()) or f"row {i + 1}"
        why = "; ".join(never_read.values())
        runs.append(StudyRun(name=called, path=path, settings=settings, finals=finals, why=why, ours=False))
    return _unique(runs)


def setting(name: str, value: Any) -> Any:
    """A cell as a setting: what counts something is a whole number."""
    counts = name == "seed" or name in TrainConfig.model_fields
    return int(value) if counts and isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def is_result(column: str) -> bool:
    """Whether a metric is what a run is made for, unlike a rate or a norm, which may well be zero throughout."""
    words = {re.sub(r"@\d+$", "", word) for word in plain_name(column).split("_")}
    return is_metric(column) and bool(words & RESULTS)


def _is_final(column: str, cells: Sequence[Any]) -> bool:
    """Whether a column of a table without steps is a result, and no setting."""
    plain = plain_name(column)
    is_known = (is_metric(column) and plain != "lr") or _as_minutes(plain)[0] == "minutes"
    return is_known and any(cell is None or isinstance(cell, float) for cell in cells)


def _is_placeholder(values: Sequence[Any]) -> bool:
    """Several cells, each zero or empty: one zero may well be a result."""
    return all(value in (None, 0.0) for value in values) and (len(values) > 1 or values == [None])


def _nothing(values: Sequence[Any]) -> str:
    return f"all {len(values)} cells are 0.000 or empty: no data" if len(values) > 1 else "its cell is empty: no data"


def _as_minutes(name: str) -> tuple[str, float]:
    """(name, factor): a duration under the name `minutes`, anything else as it is."""
    words = name.split("_")
    is_time = {"time", "runtime", "duration", "minutes"} & set(words)
    return ("minutes", MINUTES[words[-1]]) if is_time and words[-1] in MINUTES else (name, 1.0)


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _unique(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The runs, with a number behind the names that come again."""
    seen: dict[str, int] = {}
    unique = []
    for run in runs:
        seen[run.name] = seen.get(run.name, 0) + 1
        again = f" ({seen[run.name]})" if seen[run.name] > 1 else ""
        unique.append(replace(run, name=f"{run.name}{again}"))
    return unique
