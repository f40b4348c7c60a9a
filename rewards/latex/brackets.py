"""Where brackets open and close in canonical text."""

import re
from collections.abc import Iterator

MAX_DEPTH = 24
"""Of brackets in brackets; what is nested deeper is not read."""

_OPENING = frozenset({"(", "[", "{", r"\{", r"\begin"})
_CLOSING = frozenset({")", "]", "}", r"\}", r"\end"})
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)


class UnreadableError(Exception):
    """It has no structure: its brackets do not balance or are too deep, or a part of it is empty."""


def tokens(latex: str) -> Iterator[tuple[str, int, int]]:
    r"""Commands and characters with their place and how deep in brackets they are; a bracket is inside itself.

    Brackets close in pairs of any kind, as in ``[0, 1)``. Raises UnreadableError.
    """
    level = 0
    for match in _TOKEN.finditer(latex):
        token = match[0]
        if token in _OPENING:
            level += 1
            if level > MAX_DEPTH:
                raise UnreadableError("brackets too deep")
        yield token, match.start(), level
        if token in _CLOSING:
            level -= 1
            if level < 0:
                raise UnreadableError("brackets do not balance")
    if level:
        raise UnreadableError("brackets do not balance")


def split(latex: str, *separators: str) -> list[str]:
    """The parts between separators that are outside all brackets. Raises UnreadableError."""
    if not any(separator in latex for separator in separators):
        return [latex]
    parts, start = [], 0
    for token, at, level in tokens(latex):
        if level == 0 and token in separators:
            parts.append(latex[start:at])
            start = at + len(token)
    return [*parts, latex[start:]]


def groups(latex: str) -> Iterator[str]:
    """The whole text and the content of every pair of brackets in it. Raises UnreadableError."""
    yield latex
    opened: list[int] = []
    for token, at, _ in tokens(latex):
        if token in _OPENING:
            opened.append(at + len(token))
        elif token in _CLOSING:
            yield latex[opened.pop() : at]


def closes_at(latex: str) -> int:
    """Where the bracket that opens a text is closed, as the length up to there. Raises UnreadableError."""
    return next((at + len(token) for token, at, level in tokens(latex) if level == 1 and token in _CLOSING), -1)
