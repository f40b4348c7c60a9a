"""Completions of a run with their verdicts: what to show of the ledger or of evaluations, and how."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rewards.verdict import Mark
from rl.buffer.history import Entry, History, Order
from rl.core.errors import UsageError
from rl.core.rundir import RunDir, step_of
from rl.core.types import Problem
from rl.evaluate.result import EvalResult, QuestionResult

STYLES = {Mark.RIGHT: "green", Mark.WRONG: "red", Mark.ERROR: "yellow"}
LINES, COLUMNS = 6, 600
"""Of a completion, where the terminal shows less than all of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A completion and what was said of it."""

    mark: Mark
    reason: str
    answer: str | None
    rule: str
    """What the answer was extracted by, or why there is none; empty where that is not known, as is `compared`."""
    compared: str
    """What decided."""
    text: str
    version: int | None = None
    """Of the policy that sampled it; this and the next ones are not known of an evaluation."""
    tokens: int | None = None
    cut: bool = False
    """Whether it ends at the limit of tokens."""
    paid: float | None = None
    """The reward where it does not follow from the mark."""

    @property
    def reward(self) -> float | None:
        """None for an error."""
        if self.mark is Mark.ERROR:
            return None
        return float(self.mark is Mark.RIGHT) if self.paid is None else self.paid

    @property
    def note(self) -> str:
        """Who sampled it, whether it was cut, and a reward of the user's own; empty of an evaluation."""
        if self.version is None:
            return ""
        paid = f"reward {self.paid:g}" if self.paid is not None else ""
        known = (f"version {self.version}", f"{self.tokens} tokens", "cut" if self.cut else "", paid)
        return ", ".join(filter(None, known))

    @property
    def verdict(self) -> str:
        answer = "no answer" if self.answer is None else f"answer {self.answer}" if self.answer else "empty answer"
        answer += f" ({self.rule})" if self.rule else ""
        decided = f"decided by {self.compared}" if self.compared else ""
        return ", ".join(filter(None, (self.reason, answer, decided, self.note)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A problem with completions, under a title that says where they come from."""

    title: str
    problem: Problem
    lines: list[Line]

    @property
    def counted(self) -> list[tuple[Line, str]]:
        """Each different line with how often it is there: empty for once, else like ``×3``."""
        return [(line, f"×{n}" if n > 1 else "") for line, n in Counter(self.lines).items()]


# ---- what to show


def of_training(
    run: RunDir, *, step: int | None, problem: str, mark: Mark | None, order: Order, limit: int
) -> list[Card]:
    """Groups from the ledger; only as many are kept in memory as are shown.

    Args:
        problem: the beginning of its id, or a part of its text; empty for any.
        mark: show only completions with it.

    Raises:
        UsageError: there is no ledger, or nothing is as asked.
    """
    with closing(History(run.buffer_url)) as history:
        entries = history.entries(step=step, problem=lambda own: _is(own, problem), order=order)
        return _found((of_group(entry, mark) for entry in entries), limit, "sampled group")


def of_evaluation(
    run: RunDir, *, set: str, step: int | None, problem: str, mark: Mark | None, order: Order, limit: int
) -> list[Card]:
    """Questions of one evaluation, the newest where `step` is None.

    Raises:
        UsageError: there is no such evaluation, or nothing is as asked.
    """
    result = _evaluation(run, set, step)
    questions = [question for question in result.questions if _is(_problem(question), problem)]
    if order in ("best", "worst"):
        questions = [question for question in questions if question.verified]
        questions.sort(key=_right_share, reverse=order == "best")
    cards = (_of_question(question, result, mark) for question in questions)
    return _found(cards, limit, "evaluated question")


Pair = tuple[QuestionResult, QuestionResult]
"""A question at the first evaluation and at a later one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """The questions that most samples answer rightly at the first evaluation and not in a later one, and the reverse;
    those whose share of right samples changed most come first."""

    first: EvalResult
    last: EvalResult
    questions: int
    """That both could measure."""
    lost: list[Pair]
    gained: list[Pair]

    @property
    def summary(self) -> str:
        return (
            f"{self.questions} questions; right at step {self.first.step} and wrong at step {self.last.step}: "
            f"{len(self.lost)}; the reverse: {len(self.gained)} (right is more than half of the samples; some of it is "
            "chance: see rl.eval)"
        )

    def cards(self, pairs: Sequence[Pair], mark: Mark | None = None) -> list[Card]:
        """Two for each pair, the first evaluation's before the later one's."""
        return [_of_question(q, r, mark) for pair in pairs for q, r in zip(pair, (self.first, self.last), strict=True)]


def changed(run: RunDir, *, set: str, step: int | None = None, problem: str = "") -> Changes:
    """How the first evaluation of a set and a later one differ, the newest where `step` is None.

    Raises:
        UsageError: there are no two evaluations.
    """
    first, last = _evaluation(run, set, min(_steps(run, set), default=None)), _evaluation(run, set, step)
    if first.step == last.step:
        raise UsageError(f"{run.root} has only one evaluation of {set} to compare", fix="wait for the next one")
    later = {question.problem_id: question for question in last.questions}
    pairs = [(old, later[old.problem_id]) for old in first.questions if old.problem_id in later]
    pairs = [pair for pair in pairs if _is(_problem(pair[0]), problem) and all(q.verified for q in pair)]
    pairs.sort(key=lambda pair: _right_share(pair[1]) - _right_share(pair[0]))
    return Changes(
        first=first,
        last=last,
        questions=len(pairs),
        lost=[pair for pair in pairs if _right_share(pair[0]) > 0.5 >= _right_share(pair[1])],
        gained=[pair for pair in reversed(pairs) if _right_share(pair[0]) <= 0.5 < _right_share(pair[1])],
    )


def _steps(run: RunDir, set: str) -> list[int]:
    files = sorted(run.eval_file(set, 0).parent.glob("step-*.json"))
    return [step_of(path) for path in files if path.stem.removeprefix("step-").isdecimal()]


def _evaluation(run: RunDir, set: str, step: int | None) -> EvalResult:
    known = _steps(run, set)
    wanted = known[-1] if step is None and known else step
    if wanted not in known or wanted is None:
        what = f"evaluation of {set}" + (f" at step {step}" if step is not None else "")
        there = f"it has those of steps {', '.join(map(str, known))}" if known else "its evals/ holds what there is"
        raise UsageError(f"{run.root} has no {what}", fix=there)
    return EvalResult.load(run.eval_file(set, wanted))


def _is(problem: Problem, wanted: str) -> bool:
    return problem.id.startswith(wanted) or wanted.casefold() in problem.text.casefold()


def _problem(question: QuestionResult) -> Problem:
    return Problem(id=question.problem_id, text=question.problem, gold=question.gold)


def _right_share(question: QuestionResult) -> float:
    return question.pass_at(1) or 0.0


def _found(cards: Iterator[Card], limit: int, what: str) -> list[Card]:
    found = list(islice((card for card in cards if card.lines), limit))
    if not found:
        raise UsageError(f"no {what} is as you asked", fix="leave out one of --step, --problem, --mark")
    return found


def of_group(entry: Entry, mark: Mark | None = None) -> Card:
    """A group, with those of its completions that have the mark."""
    group = entry.group
    lines = [
        Line(
            mark=sample.verdict.mark,
            reason=sample.verdict.reason,
            answer=sample.verdict.answer,
            rule=sample.verdict.rule,
            compared=sample.verdict.compared,
            text=sample.rollout.text,
            version=sample.rollout.policy_version,
            tokens=len(sample.rollout.token_ids),
            cut=sample.rollout.finish_reason == "length",
            paid=sample.verdict.paid,
        )
        for sample in group.samples
        if mark in (None, sample.verdict.mark)
    ]
    reward = "not verified" if entry.mean_reward is None else f"mean reward {entry.mean_reward:.2f}"
    state = f"{entry.state.value}" + (f" in step {entry.step}" if entry.step is not None else "")
    return Card(title=f"group {group.id}, {state}, {reward}", problem=group.problem, lines=lines)


def _of_question(question: QuestionResult, result: EvalResult, mark: Mark | None) -> Card:
    unknown = [""] * len(question.marks)  # in the files of older evaluations
    columns = (question.rules or unknown, question.compared or unknown, question.completions)
    lines = [
        Line(mark=own, reason=reason, answer=answer, rule=rule, compared=compared, text=text)
        for own, reason, answer, rule, compared, text in zip(
            question.marks, question.reasons, question.answers, *columns, strict=True
        )
        if mark in (None, own)
    ]
    right = question.marks.count(Mark.RIGHT)
    title = f"{result.set} at step {result.step}, {right} of {len(question.marks)} right"
    return Card(title=title, problem=_problem(question), lines=lines)


# ---- how it is shown


def printable(text: str) -> str:
    """The text with what could move a cursor, hide, or turn the direction of other text made visible: ``\\x1b[2J``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def to_terminal(cards: Sequence[Card], *, full: bool) -> None:
    """Prints cards; of long completions only the beginning and the end unless `full`."""
    console = Console(highlight=False, markup=False)
    shorten: Callable[[str], str] = str if full else _shortened
    for card in cards:
        console.print(Text(card.title, style="bold"))
        console.print(Text(shorten(printable(card.problem.text))))
        console.print(
            Text(f"gold {shorten(printable(card.problem.gold))}; id {printable(card.problem.id)}", style="dim")
        )
        for line, times in card.counted:
            verdict = (f"  {shorten(printable(line.verdict))}", "dim")
            console.print(Text.assemble((f"  {line.mark.value:5}{times:>3}", STYLES[line.mark]), verdict))
            text = Text(shorten(printable(line.text)))
            for row in text.wrap(console, max(20, console.width - 12)):
                console.print(Text(12 * " ").append_text(row), soft_wrap=True)
        console.print()


def _shortened(text: str) -> str:
    lines = text.split("\n")
    if len(lines) > LINES:
        left_out = len(lines) - LINES
        lines = [*lines[: LINES // 2], f"… {left_out} lines …", *lines[-LINES // 2 :]]
    text = "\n".join(lines)
    if len(text) > COLUMNS:
        left_out = len(text) - COLUMNS
        text = f"{text[: COLUMNS // 2]} … {left_out} characters … {text[-COLUMNS // 2 :]}"
    return text


def to_html(cards: Sequence[Card], path: Path, *, title: str, summary: str) -> None:
    """Writes one self-contained page. What the model wrote is text in it, whatever it looks like.

    Raises:
        UsageError: the file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["printable"] = printable
    page = environment.get_template("show.html").render(cards=cards, title=title, summary=summary)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", fix="name a file that you may write") from None
