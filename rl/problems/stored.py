"""Problems on disk: an Arrow file made once from a source and mapped into memory, so that a million cost next to none.

The files are in the user's Hugging Face cache. Their names are hashes of the source, its settings and the code that
reads it: whatever changes makes another file.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import metadata
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import rewards
from rl.core.errors import TallyError
from rl.core.types import Problem
from rl.problems.sets import Source
from rl.problems.starter import problem_id

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa  # type: ignore[import-untyped]
    from numpy.typing import NDArray

BATCH = 10_000
"""Rows in memory at a time."""


@dataclass(frozen=True, eq=False)
class StoredProblems(Sequence[Problem]):
    """A choice of the rows of Arrow files, as a sequence that reads a problem when it is asked for."""

    batches: "list[pa.RecordBatch]"
    """With the columns of `_batch`."""
    rows: "NDArray[np.int64]"
    """Which rows of all batches these are, in order."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Problem: ...
    @overload
    def __getitem__(self, place: slice) -> "StoredProblems": ...
    def __getitem__(self, place: int | slice) -> "Problem | StoredProblems":
        if isinstance(place, slice):
            return replace(self, rows=self.rows[place])
        row = int(self.rows[place])
        number = bisect_right(self._starts, row) - 1
        batch, row = self.batches[number], row - self._starts[number]
        text, gold = (str(batch.column(name)[row].as_py()) for name in ("text", "gold"))
        return Problem(id=problem_id(text), text=text, gold=gold)

    def column(self, name: str) -> "NDArray[Any]":
        """One value for each problem: `id` or `key` (64-bit hashes of the text and of its `normalised` form), or
        `heldout`."""
        return self._each(lambda batch: batch.column(name))

    def has_gold_in(self, golds: Iterable[str]) -> "NDArray[np.bool_]":
        """Whether each problem's gold is one of these."""
        import pyarrow as pa
        import pyarrow.compute as pc  # type: ignore[import-untyped]

        some = pa.array(list(golds), pa.string())
        return self._each(lambda batch: pc.is_in(batch.column("gold"), value_set=some))

    def where(self, chosen: "NDArray[np.bool_]") -> "StoredProblems":
        return replace(self, rows=self.rows[chosen])

    @property
    def repeats(self) -> int:
        """Of a whole source: how many of its rows have the text of an earlier one."""
        return self._starts[-1] - len(self)

    def golds(self) -> Iterator[str]:
        """Every gold at least once, in no order."""
        for batch in self.batches:
            yield from batch.column("gold").to_pylist()

    def _each(self, values: "Callable[[pa.RecordBatch], pa.Array]") -> "NDArray[Any]":
        import numpy as np

        every: NDArray[Any] = np.concatenate([values(b).to_numpy(zero_copy_only=False) for b in self.batches])
        return every[self.rows]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((batch.num_rows for batch in self.batches), initial=0))


def stored(source: Source) -> StoredProblems:
    """The problems of a source in the order of their ids, which is a shuffle that is always the same; each text once.

    Raises:
        UsageError: a row cannot be read, or there is none.
    """
    import pyarrow as pa

    def write(path: Path) -> None:
        problems = source.problems()
        with pa.OSFile(str(path), "wb") as file:
            first = _batch(list(islice(problems, BATCH)), source)
            with pa.ipc.new_file(file, first.schema) as writer:
                writer.write_batch(first)
                while some := list(islice(problems, BATCH)):
                    writer.write_batch(_batch(some, source))

    path = cached(version_of(source), ".arrow", f"reading {source.name}", write)
    return _each_once(pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_batches())


def version_of(source: Source) -> str:
    """Changes when its problems or the faults of its golds may have: with the source, and with our code."""
    return f"{source.version}/{_code_version()}"


def concatenated(parts: Sequence[StoredProblems]) -> StoredProblems:
    """The problems of all parts in the order of their ids, each text once."""
    import numpy as np

    starts = accumulate((part._starts[-1] for part in parts), initial=0)
    rows = np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)])
    return _each_once([batch for part in parts for batch in part.batches], rows)


def cached(version: str, suffix: str, doing: str, write: Callable[[Path], object]) -> Path:
    """The file of this version in the cache; made if it is not there, whole or not at all.

    Args:
        doing: what to say meanwhile, on a terminal.

    Raises:
        TallyError: it cannot be written.
    """
    from huggingface_hub.constants import HF_HOME
    from rich.console import Console

    path = Path(HF_HOME) / "tally" / (hashlib.sha256(version.encode()).hexdigest()[:32] + suffix)
    if path.exists():
        return path
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Console(stderr=True).status(doing):
            write(partial)
        os.replace(partial, path)
    except OSError as error:
        fix = "make room, or set HF_HOME to a folder that you may write to"
        raise TallyError(f"cannot write {path}: {error.strerror or error}", fix=fix) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def cached_json(version: str, doing: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What `make` returns, made once."""
    path = cached(version, ".json", doing, lambda path: path.write_text(json.dumps(make())))
    return dict(json.loads(path.read_text()))


def text_key(text: str) -> str:
    """A hash of the text that is the same whatever its case and white space: equal keys are duplicates."""
    return problem_id(" ".join(text.lower().split()))


def _each_once(batches: "list[pa.RecordBatch]", rows: "NDArray[np.int64] | None" = None) -> StoredProblems:
    """In the order of ids; of equal ids the first, among all rows or these."""
    import numpy as np

    rows = np.arange(sum(batch.num_rows for batch in batches)) if rows is None else rows
    _, first = np.unique(StoredProblems(batches, rows).column("id"), return_index=True)
    return StoredProblems(batches, rows[first])


def _batch(problems: list[tuple[str, str]], source: Source) -> Any:
    import pyarrow as pa

    texts, golds = zip(*problems, strict=True)
    ids = [problem_id(text) for text in texts]
    columns = {
        "text": pa.array(texts, pa.string()),
        "gold": pa.array(golds, pa.string()),
        "id": pa.array([int(id, 16) for id in ids], pa.uint64()),
        "key": pa.array([int(text_key(text), 16) for text in texts], pa.uint64()),
        "heldout": pa.array([source.is_heldout(id) for id in ids], pa.bool_()),
    }
    return pa.RecordBatch.from_pydict(columns)


@cache
def _code_version() -> str:
    """Of what reads problems, extracts their golds and checks them."""
    rooms = Path(__file__).parent, Path(rewards.__file__).parent
    code = b"".join(path.read_bytes() for room in rooms for path in sorted(room.rglob("*.py")))
    return f"{metadata.version('math-verify')}/{hashlib.sha256(code).hexdigest()}"
