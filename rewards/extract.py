r"""What a completion claims as its answer: the last balanced ``\boxed{…}`` after its thinking, and nothing else.

No "the answer is", no last number: what is paid is what will be learned, and a lenient rule pays for rambling.
"""

import re
from dataclasses import dataclass

WINDOW = 65_536
"""Characters at the end of a completion that are looked at."""

_TOKEN = re.compile(r"\\(?P<box>boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
# No match can backtrack: linear on any text. `\\.` eats `\{` and `\}`, which LaTeX prints and does not balance.


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    r"""Example: ``extract(r"So \boxed{33}.") == Extraction(answer="33", rule=r"last \boxed{}")``"""

    answer: str | None
    """The box's content without surrounding white space; None when no box was found."""
    rule: str
    """How it was found, or why not."""


def extract(completion_text: str) -> Extraction:
    r"""Take the content of the last balanced ``\boxed{…}`` or ``\fbox{…}``; of nested boxes, the innermost.

    Only text after the last ``</think>`` counts, and none of a ``<think>`` that was never closed. Linear time.
    """
    _, _, spoken = completion_text.rpartition("</think>")
    spoken, _, unclosed = spoken.partition("<think>")
    spoken = spoken[-WINDOW:]
    opened: list[re.Match[str]] = []  # the braces and boxes that are open at this point of the text
    last: tuple[re.Match[str], int] | None = None
    for token in _TOKEN.finditer(spoken):
        if token["box"] or token[0] == "{":
            opened.append(token)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start["box"] and (last is None or start.start() > last[0].start()):
                last = start, token.start()
    if last is not None:
        box, end = last
        return Extraction(answer=spoken[box.end() : end].strip(), rule=rf"last \{box['box']}{{}}")
    if any(token["box"] for token in opened):
        return Extraction(answer=None, rule="a box that is not closed")
    return Extraction(answer=None, rule="unclosed <think>" if unclosed else "no box")
