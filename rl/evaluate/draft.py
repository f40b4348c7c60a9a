"""An evaluation in progress: a file that every answered question is appended to, so that a killed evaluation goes on.

evals/.step-000050.json.draft    a line that says what is evaluated and how, then one line a question
"""

import os
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


def answered(final: Path) -> int:
    """Questions answered so far of the evaluation that will be written to `final`; 0 where none is in progress."""
    try:
        return max(0, path_of(final).read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0
