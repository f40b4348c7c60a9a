"""What trackers show of a run: numbers under `section/name`, and tables. `rl.core.metrics` says what each number is."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from rewards.verdict import Mark
from rl.buffer.history import Entry
from rl.core.metrics import AGE, EVAL, PUBLISH, STEP, SUMMARY
from rl.evaluate.result import EvalResult
from rl.observe.readings import Record

AXIS = "step"
"""The field of every record that charts are drawn over."""
CELL_CHARS = 2000
"""Of a table's cell; longer text is cut."""
TABLE_ROWS, TABLE_GROUPS = 2000, 4
"""The questions of an evaluation, and the groups of a step, that are shown."""

_SECTIONS = {"step": {m.name: m.section for m in STEP}, "publish": {m.name: m.section for m in PUBLISH}}
Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    columns: list[str]
    rows: list[list[Cell]]


def scalars(record: Record) -> dict[str, float]:
    """The numbers of one record, those of a step by age too; of an evaluation each estimate with its interval.

    Example: ``{"train/reward": 0.61, "age/3/ess": 0.98, …}``; ``{"eval/heldout/pass@1": 0.73,
    "eval/heldout/pass@1/low": 0.69, …}``
    """
    if record["kind"] == "eval":
        return _estimates(record)
    sections = _SECTIONS.get(record["kind"], {})
    numbers = {name: value for name, value in record.items() if name != AXIS and isinstance(value, int | float)}
    ages = record.get("by_age", {}).items()
    by_age = {f"age/{age}/{name}": value for age, of_age in ages for name, value in of_age.items()}
    return {f"{sections.get(name, record['kind'])}/{name}": value for name, value in numbers.items()} | by_age


def _estimates(record: Record) -> dict[str, float]:
    place = f"eval/{record['set']}"
    numbers = {f"{place}/seconds": record["seconds"]}
    for name, estimate in record["summary"].items():
        if estimate is not None:
            numbers[f"{place}/{name}"] = estimate["value"]
            numbers |= {f"{place}/{name}/{end}": estimate[end] for end in ("low", "high")}
    return numbers


METRICS = {f"{m.section}/{m.name}": m for m in (*STEP, *PUBLISH) if m.name != AXIS}
"""Those whose name is known before the run, as trackers call them."""


def glossary() -> Table:
    """What each metric means."""
    evals = {f"eval/<set>/{m.name}": m for m in (*EVAL, *SUMMARY) if m.name != AXIS}
    named = METRICS | {f"age/<staleness>/{m.name}": m for m in AGE} | evals
    rows: list[list[Cell]] = [[name, m.unit, m.good, m.text] for name, m in named.items()]
    return Table(columns=["metric", "unit", "good", "meaning"], rows=rows)


def completions(step: int, groups: Iterable[Entry]) -> Table:
    """The first groups that a step was computed from, a row for each completion."""
    columns = ["step", "problem", "completion", "answer", "gold", "mark", "reason", "reward", "policy_version"]
    rows: list[list[Cell]] = []
    for entry in islice(groups, TABLE_GROUPS):
        problem = entry.group.problem
        for sample in entry.group.samples:
            verdict, rollout = sample.verdict, sample.rollout
            texts = [_cell(text) for text in (problem.text, rollout.text, verdict.answer, problem.gold)]
            marked = [str(verdict.mark), _cell(verdict.reason), verdict.reward]
            rows.append([step, *texts, *marked, rollout.policy_version])
    return Table(columns=columns, rows=rows)


def questions(result: EvalResult) -> Table:
    """One evaluation, a row for each question: how many of its samples are right, all answers, one completion."""
    columns = ["step", "problem", "gold", "right", "samples", "answers", "completion", "mark", "reason"]
    rows: list[list[Cell]] = []
    for question in result.questions[:TABLE_ROWS]:
        right = question.marks.count(Mark.RIGHT)
        first = (question.completions[:1], [str(mark) for mark in question.marks[:1]], question.reasons[:1])
        shown = [_cell(values[0]) if values else None for values in first]
        answers = _cell(", ".join(answer or "–" for answer in question.answers))
        row = [_cell(question.problem), _cell(question.gold), right, len(question.marks), answers]
        rows.append([result.step, *row, *shown])
    return Table(columns=columns, rows=rows)


def _cell(text: str | None) -> str | None:
    return text if text is None or len(text) <= CELL_CHARS else f"{text[:CELL_CHARS]} …"
