"""The rows of a data file: JSON lines, a JSON array, Parquet or CSV, read as a stream (a JSON array is read whole)."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl.core.errors import UsageError

Row = tuple[str, dict[str, Any]]
"""Where it is, for messages (`my.jsonl:3`), and its fields."""

EXAMPLE = 'write rows like {"problem": "1+1", "answer": "2"}'
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_SPLIT_FILE = re.compile(r"(?P<split>\w+?)(?:-\d+-of-\d+)?")
"""`train.jsonl`, and the hub's `train-00000-of-00002.parquet`."""


def split_files(path: Path) -> dict[str, list[Path]]:
    """Split → its files. A file is one split, `train`; a folder has those that its files, or those in `data/`, name."""
    if path.is_file():
        return {"train": [path]}
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted([*path.glob("*"), *path.glob("data/*")]):
        if file.suffix in SUFFIXES and (name := _SPLIT_FILE.fullmatch(file.stem)):
            splits[name["split"]].append(file)
    return splits


def read_rows(path: Path) -> Iterator[Row]:
    """Raises:
    UsageError: the file cannot be read, or a row is no object with fields.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".csv":
            yield from _csv(path)
        else:
            yield from _json(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", fix="name a file you may read") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason}", fix=f"name a file in {_KINDS}") from None


_KINDS = "JSONL, JSON, Parquet or CSV, with that suffix"
_TEXT = "utf-8-sig"
"""UTF-8, with or without the mark that spreadsheets put before it."""


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding=_TEXT) as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row:  # else a comma in a problem would end it, and make the rest of it the gold
                    message = f"{where} has more cells than the first line has names"
                    raise UsageError(message, fix="put cells with commas into double quotes")
                yield where, row
        except csv.Error as error:
            message = f"{path} is not CSV after line {reader.line_num}: {error}"
            raise UsageError(message, fix=f"name a file in {_KINDS}") from None


def _json(path: Path) -> Iterator[Row]:
    """An array where the file begins with a bracket, else one object a line: both go by the name .json."""
    with path.open(encoding=_TEXT) as file:
        is_array = next((line.lstrip()[0] for line in file if line.strip()), "") == "["
        file.seek(0)
        if is_array:
            found = (
                (f"{path}, row {number}", row) for number, row in enumerate(_parsed(file.read(), str(path)), start=1)
            )
        else:
            lines = ((f"{path}:{number}", line) for number, line in enumerate(file, start=1))
            found = ((where, _parsed(line, where)) for where, line in lines if line.strip())
        for where, row in found:
            if not isinstance(row, dict):
                raise UsageError(f"{where} is no object with fields", fix=EXAMPLE)
            yield where, row


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{where} is not JSON", fix=EXAMPLE) from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except pa.ArrowException as error:
        raise UsageError(f"{path} is no Parquet file: {error}", fix=f"name a file in {_KINDS}") from None
