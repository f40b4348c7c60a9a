"""Runs of other tools: their tables and logs in the form in which ours are compared.

    .csv .tsv            a table; also as W&B exports it
    .json                a table (a list of rows, or columns), or transformers' `trainer_state.json`
    .jsonl               a table, one row a line
    .md                  the tables of a report
    anything else        a log of plain lines: ``step 500: train loss 6.67, val loss 6.71``

`rl.study.tables` says how a table is read. Numbers that are not finite stay as they are: they are facts of a run.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.study.runs import StudyRun
from rl.study.tables import Row, cell, is_metric, plain_name, runs_of, setting

FORMATS = "CSV, TSV, JSON, JSONL, Markdown tables, or lines like: step 500: train loss 6.67, val loss 6.71"
LONGEST_LINE = 5000
"""Characters that are looked at in a line of a log."""

_VALUE = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+|nan|inf(?:inity)?|∞)"
_STEP = re.compile(r"\b(?:global[_ ])?(step|iter(?:ation)?|epoch)\b[\s:=#\[(]*(\d{1,15})\b(?!\.\d)", re.IGNORECASE)
_METRIC = re.compile(
    rf"(?<![\w@])([A-Za-z][A-Za-z_/.\- ]{{0,40}}(?:@\d+)?)\s{{0,4}}[:=]?\s{{0,4}}({_VALUE}\s?%?)(?![\w.])",
    re.IGNORECASE,
)
_SETTING = re.compile(
    rf"\W{{0,9}}([A-Za-z][\w ]{{0,40}}?)[*\s]{{0,4}}[:=][*\s]{{0,4}}({_VALUE})(?![\w.])", re.IGNORECASE
)
_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_SETS = {"train": "train_loss", "val": "val_loss", "valid": "val_loss", "validation": "val_loss", "eval": "eval_loss"}
"""A set alone means its loss: `step 500: train 6.67, val 6.71`."""


def read_foreign(path: Path, metric: str = "") -> list[StudyRun]:
    """The runs that a file of another tool holds.

    Args:
        metric: what the cells of a table are in which each column is a run; the file's name unless given.

    Raises:
        UsageError: the file cannot be read, or has no table and no line with a step and a metric.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", fix=f"name a file: {FORMATS}") from None
    suffix = path.suffix.casefold()
    if suffix in (".csv", ".tsv"):
        runs = runs_of(_csv(text, path), path, metric)
    elif suffix in (".json", ".jsonl", ".ndjson"):
        runs = _of_json(text, path, metric)
    else:
        tables = list(_markdown(text))
        runs = [run for rows in tables for run in runs_of(rows, path, metric)] or _of_log(text, path)
    if not any(run.curves or run.finals for run in runs):
        raise UsageError(f"{path} has no table of runs, and no line with a step and a metric", fix=f"name {FORMATS}")
    return runs


def _csv(text: str, path: Path) -> list[Row]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        return list(csv.DictReader(text.splitlines(), delimiter=delimiter, restkey="", restval=""))
    except csv.Error as error:
        raise UsageError(
            f"{path} is not CSV: {error}", fix="write it again as CSV, with commas in double quotes"
        ) from None


def _of_json(text: str, path: Path, metric: str) -> list[StudyRun]:
    try:
        content = json.loads(text)
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply", fix=f"name {FORMATS}") from None
    except ValueError:
        content = _json_lines(text, path)
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        known = {plain_name(name): value for name, value in content.items() if isinstance(value, int | float | str)}
        settings = {name: value for name, value in known.items() if name in TrainConfig.model_fields}
        runs = runs_of(_rows(content["log_history"], path), path, metric, settings)
        return runs
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        longest = max(map(len, content.values()))
        content = [{name: column[i] for name, column in content.items() if i < len(column)} for i in range(longest)]
    elif isinstance(content, dict) and content and all(isinstance(row, dict) for row in content.values()):
        content = [{"name": name, **row} for name, row in content.items()]
    return runs_of(_rows(content if isinstance(content, list) else [content], path), path, metric)


def _json_lines(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                raise UsageError(
                    f"{path}:{number} is not JSON", fix='write lines like {"step": 500, "loss": 6.67}'
                ) from None
    return rows


def _rows(content: Sequence[Any], path: Path) -> list[Row]:
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            message = f"{path}, row {number} is no object with fields"
            raise UsageError(message, fix='write rows like {"step": 500, "loss": 6.67}')
    return list(content)


def _markdown(text: str) -> Iterator[list[Row]]:
    """The tables: a line of names, a rule, and lines with a bar."""
    lines = text.splitlines()
    for i, line in enumerate(lines[1:], start=1):
        if "|" in line and "|" in lines[i - 1] and _RULE.fullmatch(line[:LONGEST_LINE]):
            names = _bars(lines[i - 1])
            body = takewhile(lambda line: "|" in line, lines[i + 1 :])
            yield [dict(zip(names, _bars(row), strict=False)) for row in body]


def _bars(line: str) -> list[str]:
    return [text.strip(" *") for text in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _of_log(text: str, path: Path) -> list[StudyRun]:
    """One run: each line with a metric is a row; without any step in the file, lines are counted."""
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    for line in (line[:LONGEST_LINE] for line in text.splitlines()):
        plain = re.sub(r"['\"{}]", " ", line)
        step = _STEP.search(plain)
        rest = plain if step is None else plain[: step.start()] + " | " + plain[step.end() :]
        row = dict(_metrics(rest))
        if row and (step is not None or "loss" in row):
            rows.append({"step": step[2] if step is not None else None, **row})
        elif (found := _SETTING.match(line)) and (name := plain_name(found[1])) in TrainConfig.model_fields:
            settings.setdefault(name, setting(name, cell(found[2])))  # what a report proposes comes after what was
    if not any(row["step"] for row in rows):
        rows = [{**row, "step": number} for number, row in enumerate(rows, start=1)]
    numbered = [row for row in rows if row["step"] is not None]
    return runs_of(numbered, path, settings=settings) if numbered else []


def _metrics(line: str) -> Iterator[tuple[str, str]]:
    for name, value in _METRIC.findall(line):
        plain = plain_name(name)
        plain = _SETS.get(plain, plain)
        if is_metric(plain):
            yield plain, value
