"""The result of an evaluation: what was measured (a JSON file) and what follows from it.

The file holds completions, answers and marks; pass@k, intervals and tests are estimates, made when it is read.

    evals/step-000050.json               the held-out problems
    evals/gsm8k@test/step-000050.json    a further set of `--eval-on` (`RunDir.eval_file`)
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from rewards.verdict import Mark
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.evaluate.protocol import Protocol
from rl.evaluate.stats import Difference, Estimate, estimate_mean, maj_at_k, paired_difference, pass_at_k

_MISSING = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionResult:
    """The samples of one problem: four lists, one entry a sample. They are empty where none came back.

    Example: ``QuestionResult(problem_id="9f2c…", problem="12+7*3", gold="33", completions=[r"= \\boxed{33}", "so 33"],
    answers=["33", None], marks=[Mark.RIGHT, Mark.WRONG], reasons=["equal as numbers", "no answer found"])``
    """

    problem_id: str
    problem: str
    """Its text."""
    gold: str
    completions: list[str]
    answers: list[str | None]
    """What each sample votes for in maj@k; None where nothing was extracted."""
    marks: list[Mark]
    reasons: list[str]
    """Why the verifier marked each sample so."""
    rules: list[str] = field(default_factory=list)
    """What each answer was extracted by; this and the next two are empty in the files of older evaluations."""
    compared: list[str] = field(default_factory=list)
    """What decided each mark."""
    verify_seconds: list[float] = field(default_factory=list)
    """Wall-clock time that each verdict took."""

    def __post_init__(self) -> None:
        stated = ("rules", "compared", "verify_seconds") if self.rules else ()
        for name in ("completions", "answers", "reasons", *stated):
            if (n := len(getattr(self, name))) != len(self.marks):
                raise ValueError(f"{self.problem_id}: {n} {name} but {len(self.marks)} marks")

    @property
    def verified(self) -> list[tuple[str | None, bool]]:
        """(answer, right?) of the samples that the verifier could mark: an error is missing, not wrong."""
        marked = zip(self.answers, self.marks, strict=True)
        return [(answer, mark is Mark.RIGHT) for answer, mark in marked if mark is not Mark.ERROR]

    def pass_at(self, k: int) -> float | None:
        """pass@k; None with fewer than k verified samples."""
        right = [is_right for _, is_right in self.verified]
        return pass_at_k(len(right), sum(right), k) if len(right) >= k else None

    def maj_at(self, k: int) -> float | None:
        """maj@k, by the vote of all verified samples where they are fewer than k; None without any."""
        if not self.verified:
            return None
        answers, right = zip(*self.verified, strict=True)
        return maj_at_k(answers, right, min(k, len(answers)))

    @property
    def error_share(self) -> float | None:
        """Share of the samples that the verifier could not mark; None without samples."""
        return self.marks.count(Mark.ERROR) / len(self.marks) if self.marks else None

    @property
    def no_answer_share(self) -> float | None:
        """Share of the verified samples from which nothing was extracted; None without any."""
        answers = [answer for answer, _ in self.verified]
        return answers.count(None) / len(answers) if answers else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """One policy on one problem set."""

    set: str
    """`heldout`, or a further set under its name in `--eval-on`."""
    step: int
    adapter_sha256: str | None
    """The hash of the adapter's bytes; None is the base model."""
    model: str
    problems: str
    """Where they come from, for people; what is compared is their hash."""
    problems_sha256: str
    """`hash_problems` of the evaluated problems."""
    samples_per_problem: int
    temperature: float
    max_tokens: int
    extraction: str = "strict"
    """As in the configuration; files of older evaluations do not state it."""
    questions: list[QuestionResult]
    seconds: float

    def __post_init__(self) -> None:
        if len({question.problem_id for question in self.questions}) < len(self.questions):
            raise ValueError("a problem_id occurs twice")
        if any(len(question.marks) > self.samples_per_problem for question in self.questions):
            raise ValueError(f"a question has more than {self.samples_per_problem} samples")

    @property
    def protocol(self) -> Protocol:
        return Protocol(self.problems_sha256, self.temperature, self.max_tokens, self.extraction)

    @property
    def missing(self) -> list[str]:
        """Ids of the questions without a verified sample: no estimate has them, least of all as wrong."""
        return [question.problem_id for question in self.questions if not question.verified]

    def save(self, path: Path) -> None:
        """Write the JSON file; whoever reads ``path`` at any time finds the old file or the whole new one."""
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(msgspec.json.encode(self))
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UsageError: the file cannot be read or is not an evaluation's result.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            fix = "give the path of a file under the run's evals/"
            raise UsageError(f"cannot read the evaluation {path}: {error.strerror}", fix=fix) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            fix = "delete the file and evaluate that checkpoint again"
            raise UsageError(f"{path} is not an evaluation's result: {error}", fix=fix) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two evaluations on the questions that both could measure."""

    pass_at_1: Difference | None
    """other − base; None when no question was measured in both."""
    left_out: list[str]
    """Ids of the questions that at least one of both could not measure."""


def load_all(folder: Path) -> list[EvalResult]:
    """The evaluations of a run on held-out problems, or those in the folder of a further set, in the order of steps.

    Raises:
        UsageError: one cannot be read.
    """
    return [EvalResult.load(path) for path in sorted(folder.glob("step-*.json"))]


def load_sets(evals: Path) -> dict[str, list[EvalResult]]:
    """The evaluations of a run by the name of their set, in the order of steps; the held-out problems first.

    Raises:
        UsageError: one cannot be read.
    """
    folders = [evals, *sorted(path for path in evals.glob("*") if path.is_dir())]
    return {results[0].set: results for folder in folders if (results := load_all(folder))}


def hash_problems(problems: Iterable[Problem]) -> str:
    """SHA-256 over the ids and golds of problems, in any order."""
    return hashlib.sha256(msgspec.json.encode(sorted((p.id, p.gold) for p in problems))).hexdigest()


def summary(result: EvalResult, ks: Sequence[int] | None = None) -> dict[str, Estimate | None]:
    """``pass@k`` for each k, ``maj@n``, and the shares ``error`` and ``no_answer``, each with its interval.

    An estimate is over the questions that could be measured (its ``n_questions``), or None without any.

    Args:
        ks: the powers of two up to ``samples_per_problem`` unless given.
    """
    n = result.samples_per_problem
    if ks is None:
        ks = [2**i for i in range(n.bit_length())]
    return {
        **{f"pass@{k}": _estimate(question.pass_at(k) for question in result.questions) for k in ks},
        f"maj@{n}": _estimate(question.maj_at(n) for question in result.questions),
        "error": _estimate(question.error_share for question in result.questions),
        "no_answer": _estimate(question.no_answer_share for question in result.questions),
    }


def summary_json(result: EvalResult) -> dict[str, dict[str, float] | None]:
    """`summary` for a JSON file."""
    return {name: asdict(estimate) if estimate else None for name, estimate in summary(result).items()}


def compare(base: EvalResult, other: EvalResult) -> Comparison:
    """Is other better than base? Paired by question, at pass@1.

    Raises:
        UsageError: they were measured on different problems, or at another temperature, max_tokens or extraction.
    """
    for name in base.protocol.differing(other.protocol):
        ours, theirs = getattr(base.protocol, name), getattr(other.protocol, name)
        raise UsageError(
            f"step {other.step} cannot be compared with step {base.step}: "
            f"{name} is {theirs} in the first and {ours} in the second",
            fix="evaluate both on the same problems, at the same temperature, max_tokens and extraction",
        )
    before, after = _pass_at_1(base), _pass_at_1(other)
    both = [problem_id for problem_id in before if problem_id in after]
    asked = {question.problem_id for result in (base, other) for question in result.questions}
    difference = None
    if both:
        difference = paired_difference({q: before[q] for q in both}, {q: after[q] for q in both})
    return Comparison(pass_at_1=difference, left_out=sorted(asked - set(both)))


def format_table(results: Mapping[str, EvalResult]) -> str:
    """A Markdown table in percent: pass@1, pass@k, maj@k, and the paired difference to the first row.

    k is the largest number of samples that all of them have. What could not be measured is shown as –.

    Args:
        results: the name of each row → its result; the first is the base.

    Raises:
        UsageError: a result cannot be compared with the base.
    """
    return markdown(_rows(results, _common_k(results.values())))


def format_sets(sets: Mapping[str, Mapping[str, EvalResult]], width: int | None = None) -> str:
    """`format_table` of each set in one table: compared is only what was measured on the same set.

    Args:
        sets: the name of each set → the name of each row → its result. One set's name is left out.
        width: columns of a terminal; where the table does not fit, each set has its own, with rows as columns.
    """
    k = _common_k(result for results in sets.values() for result in results.values())
    tables = {name: _rows(results, k) for name, results in sets.items()}
    head = next(iter(tables.values()))[0]
    rows = [["set", *head], *([name, *row] for name, own in tables.items() for row in own[1:])]
    text = markdown(rows if len(sets) > 1 else [row[1:] for row in rows])
    if width is None or len(max(text.splitlines(), key=len)) <= width:
        return text
    return "\n\n".join(_turned([[name, *own[0][1:]], *own[1:]]) for name, own in tables.items())


def _turned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, without bars: the first to the left, the others to the right."""
    widths = [max(map(len, row)) for row in rows]
    lines = zip(*rows, strict=True)
    return "\n".join(
        "  ".join([f"{name:{widths[0]}}", *(f"{cell:>{n}}" for cell, n in zip(cells, widths[1:], strict=True))])
        for name, *cells in lines
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the head; all columns but those of names are aligned to the right."""
    head, *body = rows
    rule = ["---" if name in ("", "set", "run") else "---:" for name in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def _common_k(results: Iterable[EvalResult]) -> int:
    return min(result.samples_per_problem for result in results)


def _rows(results: Mapping[str, EvalResult], k: int) -> list[list[str]]:
    base = next(iter(results.values()))
    rows = [["", "step", "questions", "pass@1 %", f"pass@{k} %", f"maj@{k} %", "pass@1 − first", "p"]]
    for name, result in results.items():
        difference = compare(base, result).pass_at_1 if result is not base else None
        rows.append([name, *_measured(result, k), percent(difference, sign="+"), p_value(difference)])
    return rows


def _measured(result: EvalResult, k: int) -> list[str]:
    measured = len(result.questions) - len(result.missing)
    estimates = [
        _estimate(question.pass_at(1) for question in result.questions),
        _estimate(question.pass_at(k) for question in result.questions),
        _estimate(question.maj_at(k) for question in result.questions),
    ]
    return [str(result.step), f"{measured}/{len(result.questions)}", *map(percent, estimates)]


def _estimate(per_question: Iterable[float | None]) -> Estimate | None:
    values = [value for value in per_question if value is not None]
    return estimate_mean(values) if values else None


def _pass_at_1(result: EvalResult) -> dict[str, float]:
    values = ((question.problem_id, question.pass_at(1)) for question in result.questions)
    return {problem_id: value for problem_id, value in values if value is not None}


def percent(estimate: Estimate | Difference | None, sign: str = "") -> str:
    if estimate is None:
        return _MISSING
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def p_value(difference: Difference | None) -> str:
    if difference is None:
        return _MISSING
    return "<0.001" if difference.p_value < 0.001 else f"{difference.p_value:.3f}"
