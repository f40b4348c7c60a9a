r"""What a completion claims as its answer, and by which rule it was found.

Strict takes the last balanced ``\boxed{…}`` after the thinking and nothing else: what is paid is what will be learned,
and a rule that looks further pays for rambling. Lenient is for the outputs of models that were never asked for a box.
"""

import re
from dataclasses import dataclass
from typing import Literal

from rewards.lenient import answer_without_box, final_answer

Mode = Literal["strict", "lenient"]

WINDOW = 65_536
"""Characters at the end of a completion that are looked at."""
MAX_GAP = 60
"""Characters between two boxes that ``and`` or ``or`` joins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    r"""Example: ``extract(r"So \boxed{33}.") == Extraction(answer="33", rule=r"last \boxed{}")``"""

    answer: str | None
    """Without surrounding white space; None when nothing was found, empty for an empty box."""
    rule: str
    """How it was found, or why not."""


def extract(completion_text: str, mode: Mode = "strict", *, choice: bool = False) -> Extraction:
    r"""The answer of a completion. Never raises; linear time.

    Only text after the last ``</think>`` counts, and none of a ``<think>`` that was never closed. Strict takes the
    content of the last balanced ``\boxed{…}`` or ``\fbox{…}``; of boxes that make one list, as in
    ``\boxed{2} and \boxed{3}``, all. Lenient takes the ``Final Answer:`` of Minerva's format before a box, and has
    more rules where there is no box at all: an empty or unclosed one is the answer that there is.

    Args:
        choice: the gold is the letter of an option, so lenient looks for one.
    """
    spoken, is_closed = after_thinking(completion_text)
    if mode == "lenient" and (answer := final_answer(spoken)):
        return Extraction(answer=answer, rule="Final Answer:")
    if (boxed := _boxed(spoken)) is not None:
        return boxed
    if mode == "lenient" and (found := answer_without_box(spoken, choice=choice)) is not None:
        return Extraction(answer=found[0], rule=found[1])
    if not is_closed:
        return Extraction(answer=None, rule="unclosed <think>")
    return Extraction(answer=None, rule="no box" if mode == "strict" else "nothing like an answer")


def after_thinking(completion_text: str) -> tuple[str, bool]:
    """What counts of a completion, at most `WINDOW` characters; and whether it closed all its thinking."""
    spoken = _END_THINK.split(completion_text)[-1]
    unclosed = _THINK.search(spoken)
    return spoken[: unclosed.start() if unclosed else None][-WINDOW:], unclosed is None


_THINK = re.compile(r"<think(?:ing)?\s*+>", re.IGNORECASE)
_END_THINK = re.compile(r"</think(?:ing)?\s*+>", re.IGNORECASE)
_BRACE = re.compile(r"\\(?P<box>boxed|fbox)\s*+\{|\\.|[{}]", re.DOTALL)
# `\\.` eats `\{` and `\}`, which LaTeX prints and does not balance.
_SPACE = r"(?:\s|\$|~|\\[\[\]() ,;:!]|\\q?quad(?![a-zA-Z]))"
_LISTED = re.compile(rf"(?:(?!\n)[^\w]){{0,10}}+|{_SPACE}*+(?:[,;]{_SPACE}*+)++")
_JOINED = re.compile(
    rf".*(?:\b(?:and|or)\b|\\l?or|\\l?and)(?: (?:maybe|perhaps|possibly|also|even|else))?(?:{_SPACE}|\}})*+",
    re.DOTALL | re.IGNORECASE,
)
_NAME = re.compile(r"[a-zA-Z](?:_\w|_\{\w+\})?\s*=\s*$")
"""Of the value in the second box: ``$x=\\boxed{2}$ or $x=\\boxed{3}$``."""
_STUCK_BEFORE = re.compile(r"(?:(?<![\w)}\]])-|\d+|\\neq?\s*|\\l?not\s*=?\s*|\\sqrt\s*\{|\\d?frac\s*\{[^{}]*\}\s*\{)$")
_STUCK_AFTER = re.compile(r"\d+|_\w|\^(?:\{[^{}]*+\}|\w)|\\?%")


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    start: int
    end: int
    """Of the whole, braces and command included."""
    content: str


def _boxed(text: str) -> Extraction | None:
    found, is_open = boxes(text)
    if not found:
        return Extraction(answer=None, rule="a box that is not closed") if is_open else None
    last = found.pop()
    contents, start = [_with_what_is_stuck_to_it(last, text)], last.start
    while found and contents[0] and found[-1].content and _make_one_list(text[found[-1].end : start]):
        box = found.pop()
        contents.append(box.content)
        start = box.start
    distinct = list(dict.fromkeys(reversed(contents)))
    rule = rf"last \{last.name}{{}}" if len(distinct) == 1 else r"joined \boxed{}"
    return Extraction(answer=", ".join(distinct), rule=rule)


def boxes(text: str) -> tuple[list[Box], bool]:
    """The closed boxes that stand in no other closed box, in their order; and whether one is left open.

    Of a box that has nothing but a box in it, the content is the inner one's.
    """
    opened: list[re.Match[str]] = []  # the braces and boxes that are open at this point of the text
    found: list[Box] = []
    for brace in _BRACE.finditer(text):
        if brace["box"] or brace[0] == "{":
            opened.append(brace)
        elif brace[0] == "}" and opened:
            start = opened.pop()
            if start["box"]:
                content = text[start.end() : brace.start()].strip()
                if found and found[-1].start > start.start() and content == text[found[-1].start : found[-1].end]:
                    content = found[-1].content
                while found and found[-1].start > start.start():
                    found.pop()
                found.append(Box(start["box"], start.start(), brace.end(), content))
    return found, any(brace["box"] for brace in opened)


def _with_what_is_stuck_to_it(box: Box, text: str) -> str:
    r"""``-\boxed{42}`` is -42, and ``\boxed{42}\%`` 42 %."""
    if not box.content:
        return ""
    before = _STUCK_BEFORE.search(text, max(box.start - 20, 0), box.start)
    after = _STUCK_AFTER.match(text, box.end)
    return (before[0] if before else "") + box.content + (after[0] if after else "")


def _make_one_list(gap: str) -> bool:
    if len(gap) > MAX_GAP or gap.isspace():  # models repeat their box
        return False
    gap = _NAME.sub("", gap)
    return _LISTED.fullmatch(gap) is not None or _JOINED.fullmatch(gap) is not None
