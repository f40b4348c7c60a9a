"""The tables of a study for other programs, as CSV. A cell without a value is empty."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rl.evaluate.result import summary
from rl.present.study import Study

Cell = str | int | float | None


def write_csv(study: Study, folder: Path) -> None:
    """Writes runs.csv, evaluations.csv and curves.csv.

    Raises:
        OSError: a file cannot be written.
    """
    settings = list(dict.fromkeys(name for run in study.runs for name in run.settings))
    finals = list(dict.fromkeys(name for run in study.runs for name in run.finals))
    head = ["run", "arm", "path", "status", "why", "last_step", "minutes", *finals, *settings]
    _write(folder / "runs.csv", head, _run_rows(study, finals, settings))
    metrics = ["value", "low", "high", "n_questions"]
    head = ["run", "arm", "set", "problems_sha256", "step", "samples", "tokens", "seconds", "metric", *metrics]
    _write(folder / "evaluations.csv", head, _evaluation_rows(study))
    curves = list(dict.fromkeys(name for run in study.runs for name in run.curves))
    _write(folder / "curves.csv", ["run", "arm", "step", *curves], _curve_rows(study, curves))


def _run_rows(study: Study, finals: Sequence[str], settings: Sequence[str]) -> Iterator[list[Cell]]:
    for arm in study.arms:
        for run in arm.runs:
            known: list[Cell] = [
                run.name,
                arm.name,
                str(run.path),
                run.status.value,
                run.why,
                run.last_step,
                run.minutes,
            ]
            yield known + [run.finals.get(name) for name in finals] + [run.settings.get(name) for name in settings]


def _evaluation_rows(study: Study) -> Iterator[list[Cell]]:
    """A row for each metric of each evaluation."""
    for arm in study.arms:
        for run in arm.runs:
            for set, evaluated in run.evaluations.items():
                for e in evaluated:
                    where: list[Cell] = [run.name, arm.name, set, e.result.problems_sha256, e.step]
                    cost: list[Cell] = [e.samples, e.tokens, e.seconds]
                    for metric, estimate in summary(e.result).items():
                        own = (estimate.value, estimate.low, estimate.high, estimate.n_questions) if estimate else ()
                        yield [*where, *cost, metric, *own]


def _curve_rows(study: Study, names: Sequence[str]) -> Iterator[list[Cell]]:
    for arm in study.arms:
        for run in arm.runs:
            columns = [
                dict(zip(curve.steps, curve.values, strict=True)) if (curve := run.curves.get(name)) else {}
                for name in names
            ]
            for step in sorted({step for column in columns for step in column}):
                yield [run.name, arm.name, step, *(column.get(step) for column in columns)]


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
