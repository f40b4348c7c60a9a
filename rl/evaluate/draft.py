"""An evaluation in progress: a file that every answered question is appended to, so that a killed evaluation goes on.

evals/.step-000050.json.draft    a line that says what is evaluated and how, then one line a question
"""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from rl.evaluate.result import EvalResult, QuestionResult


class Draft:
    """What is answered of one evaluation.

    Args:
        final: the path of the finished result.
        pinned: the result without its questions: a draft of anything else is begun anew.
    """

    def __init__(self, final: Path, pinned: EvalResult) -> None:
        self._path, self._pinned = path_of(final), pinned
        head = msgspec.json.encode(pinned)
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]  # of a line without an end the rest was never written
        found, *lines = whole.splitlines() or [b""]
        self.answered = [msgspec.json.decode(line, type=QuestionResult) for line in lines] if found == head else []
        """The questions that an earlier attempt has answered."""
        final.parent.mkdir(exist_ok=True)
        if found == head:
            os.truncate(self._path, len(whole))
        else:
            self._path.write_bytes(head + b"\n")

    def add(self, question: QuestionResult) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(question) + b"\n")

    def finish(self, final: Path, questions: list[QuestionResult], seconds: float) -> EvalResult:
        """Writes the finished result, and removes the draft."""
        result = replace(self._pinned, questions=questions, seconds=seconds)
        result.save(final)
        self._path.unlink()
        return result


def path_of(final: Path) -> Path:
    return final.with_name(f".{final.name}.draft")


class Counter:
    """Counts what is answered of an evaluation in progress, again and again; only what was added is read.

    Args:
        final: the path of the finished result.
    """

    def __init__(self, final: Path) -> None:
        self._path, self._offset, self._lines = path_of(final), 0, 0

    def answered(self) -> int:
        """Questions so far; before the first and after the last look the draft may not be there."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            self._lines += file.read().count(b"\n")
            self._offset = file.tell()
        return max(0, self._lines - 1)
