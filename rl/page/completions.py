"""The completions of a run, a page at a time: of training by step, verdict and problem, and of its evaluations."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import cast, get_args

from rewards.verdict import TRUNCATED
from rl.buffer.history import Entry, Order
from rl.buffer.tables import State
from rl.core.config import VERIFY, TrainConfig
from rl.core.errors import LedgerError, UsageError
from rl.core.rundir import RunDir
from rl.evaluate.result import EvalResult
from rl.observe import show
from rl.observe.show import Card, Line
from rl.page.shelf import Asked, Shelf
from rl.page.sight import check_size
from rl.problems.prompt import PLACE, prompt_text

VERDICTS = ("right", "wrong", "error", "truncated")
ORDERS: tuple[Order, ...] = get_args(Order)
CHANGES = {"lost": "right at first, wrong then", "gained": "wrong at first, right then"}
CARDS, LINES = 8, 16
"""Problems on a page, and different completions of each."""
HEAD, TAIL = 6_000, 3_000
"""Characters of a completion that are shown of its beginning and its end; of one alone a hundred times as many."""
LARGEST = 2**31 - 1
"""Number that a column of the ledger holds."""
SURE = 1e-6
"""Less than the reward of one sample among a thousand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the address asks for; each is empty, or None, for any."""

    set: str = ""
    """An evaluation's; empty for training."""
    step: int | None = None
    verdict: str = ""
    problem: str = ""
    order: Order = "newest"
    change: str = ""
    """Between the first evaluation and this one."""
    state: State | None = None
    group: int | None = None
    """This group alone."""
    after: int | None = None
    """The group, or the number of the question, that the page before ended with."""

    @property
    def alone(self) -> bool:
        """Whether it is one problem, which is shown whole."""
        return self.group is not None or bool(self.set and self.problem)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A text, and how much of its middle is left out."""

    head: str
    left_out: int
    tail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A page of completions."""

    cards: list[Card]
    said: list[str]
    """About what is shown and what is not."""
    after: int | None = None
    """Where the next page begins; None where there is none."""


def wanted(query: Mapping[str, str]) -> Wanted:
    """Raises:
    UsageError: something else is asked for than there can be.
    """
    given = {name: text.strip() for name, text in query.items() if text.strip()}
    state = _choice(given, "state", tuple(State))
    return Wanted(
        set=given.get("set", ""),
        step=number(given, "step"),
        verdict=_choice(given, "verdict", VERDICTS),
        problem=given.get("problem", ""),
        order=cast(Order, _choice(given, "order", ORDERS) or "newest"),
        change=_choice(given, "change", tuple(CHANGES)),
        state=State(state) if state else None,
        group=number(given, "group"),
        after=number(given, "after"),
    )


def number(given: Mapping[str, str], name: str) -> int | None:
    """Raises:
    UsageError: it is none.
    """
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST)) and int(text) <= LARGEST):
        raise UsageError(f"{name}={text} is no number")
    return int(text)


def _choice(given: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    text = given.get(name, "")
    if text and text not in known:
        raise UsageError(f"{name}={text} is not one of {', '.join(known)}")
    return text


def shown(run: RunDir, config: TrainConfig | None, evaluated: Mapping[str, Sequence[int]], asked: Wanted) -> Shown:
    """What is asked for.

    Args:
        evaluated: set → the steps at which it was evaluated, rising.

    Raises:
        UsageError: there is no such evaluation, or no ledger that can be read.
    """
    if asked.set:
        return _of_evaluation(run, evaluated.get(asked.set, ()), asked)
    with closing(Shelf(run.buffer_url)) as shelf:
        if asked.group is not None:
            return _of_group(shelf, asked.group)
        return _of_training(shelf, config, asked)


def _of_group(shelf: Shelf, id: int) -> Shown:
    try:
        entry = shelf.group(id)
    except LedgerError as error:
        return Shown(cards=[], said=[f"group {id}: {error}"])
    if entry is None:
        return Shown(cards=[], said=[f"group {id} is not stored: it is not sampled yet, or its samples were dropped"])
    return Shown(cards=[show.of_group(entry)], said=[])


def _of_training(shelf: Shelf, config: TrainConfig | None, asked: Wanted) -> Shown:
    bounds = {"right": (SURE, 1.0), "wrong": (0.0, 1.0 - SURE)}  # what it takes that one of them is so
    plain = config is not None and config.reward == VERIFY
    leaf = shelf.leaf(
        Asked(
            step=asked.step,
            state=asked.state,
            problem=asked.problem,
            reward=bounds.get(asked.verdict) if plain else None,
            order=asked.order,
            after=asked.after,
            wanted=lambda entry: entry if _lines(entry, asked.verdict) else None,
        ),
        CARDS,
    )
    said = list(leaf.damaged)
    if leaf.gone:
        said.append(f"the samples of {leaf.gone} groups were dropped (rl.audit --compact)")
    if not leaf.entries:
        more = f" among the {leaf.looked_at} groups that were looked at" if leaf.after is not None else ""
        said.append(f"nothing is as you asked{more}")
    cards = [replace(show.of_group(entry), lines=_lines(entry, asked.verdict)) for entry in leaf.entries]
    return Shown(cards=cards, said=said, after=leaf.after)


def _lines(entry: Entry, verdict: str) -> list[Line]:
    return [line for line in show.of_group(entry).lines if _is(line, verdict)]


def _is(line: Line, verdict: str) -> bool:
    if verdict == "truncated":
        return line.cut or line.reason == TRUNCATED
    return verdict in ("", line.mark.value)


def _of_evaluation(run: RunDir, steps: Sequence[int], asked: Wanted) -> Shown:
    if not steps:
        raise UsageError(f"there is no evaluation of {asked.set}")
    step = steps[-1] if asked.step is None else asked.step
    for own in {steps[0], step} if asked.change else {step}:
        check_size(run, asked.set, own)
    first, size, said = asked.after or 0, CARDS, list[str]()
    if asked.change:
        size = CARDS // 2
        changes = show.changed(run, set=asked.set, step=step, problem=asked.problem)
        pairs = changes.lost if asked.change == "lost" else changes.gained
        cards, n, said = changes.cards(pairs[first : first + size]), len(pairs), [changes.summary]
    else:
        fitting = _questions(run, replace(asked, step=step))
        cards, n = fitting[first : first + size], len(fitting)
    if not cards:
        said.append("nothing is as you asked")
    return Shown(cards=cards, said=said, after=first + size if first + size < n else None)


def _questions(run: RunDir, asked: Wanted) -> list[Card]:
    try:
        cards = show.of_evaluation(
            run, set=asked.set, step=asked.step, problem=asked.problem, mark=None, order=asked.order, limit=sys.maxsize
        )
    except UsageError:
        EvalResult.load(run.eval_file(asked.set, asked.step or 0))  # says why, where it cannot be read
        return []
    fitting = (replace(card, lines=[line for line in card.lines if _is(line, asked.verdict)]) for card in cards)
    return [card for card in fitting if card.lines]


def prompt(config: TrainConfig | None, problem: str) -> str:
    """What the model was asked, before the chat template; empty where that cannot be told."""
    try:
        text = prompt_text(config).replace(PLACE, problem) if config else ""
    except UsageError:
        return ""
    return f"{config.system_prompt}\n\n{text}" if config and config.system_prompt else text


def part(text: str, alone: bool) -> Part:
    """What is shown of a text."""
    head, tail = (HEAD * 100, TAIL * 100) if alone else (HEAD, TAIL)
    if len(text) <= head + tail:
        return Part(head=text, left_out=0, tail="")
    return Part(head=text[:head], left_out=len(text) - head - tail, tail=text[-tail:])
