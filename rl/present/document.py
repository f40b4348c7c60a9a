"""A report as data, from which the page and the Markdown are made: they say the same."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar

from rl.observe.show import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bullets:
    items: list[str]
    shown: int = 12
    """The others are folded: a study of many arms has hundreds of comparisons."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of cells that are written already; the first column names the row."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    words: frozenset[str] = frozenset()
    """Columns of text, by their heads; the others are numbers, and aligned to the right."""
    on_demand: bool = False
    """Few need it."""
    rows_shown: ClassVar[int] = 12

    @property
    def folded(self) -> bool:
        """Shown only when it is asked for, as long ones are."""
        return self.on_demand or len(self.rows) > self.rows_shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawing: a file beside the page, and within the page as SVG that takes the page's colours."""

    file: str
    alt: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model wrote to a problem, and where."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One problem and what every run made of it."""

    title: str
    problem: str
    gold: str
    completions: list[Completion]
    completions_shown: ClassVar[int] = 8

    @property
    def folded(self) -> bool:
        """Shown only when it is asked for, as those of many runs are."""
        return len(self.completions) > self.completions_shown


Block = Paragraph | Bullets | Table | Picture | Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Its id within the page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    title: str
    answer: str
    """The conclusion, before everything else; in lines."""
    sections: list[Section]


def to_markdown(document: Document) -> str:
    """As GitHub shows it."""
    parts = [f"# {_inline(document.title)}", *(f"**{_inline(line)}**" for line in document.answer.splitlines())]
    for section in document.sections:
        parts.append(f"## {_inline(section.title)}")
        parts += [part for block in section.blocks for part in _markdown(block)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield _inline(block.text)
        case Bullets():
            lines = [f"* {_inline(item)}" for item in block.items]
            yield "\n".join(lines[: block.shown])
            if rest := lines[block.shown :]:
                yield _folded(f"{len(rest)} more", "\n".join(rest))
        case Table():
            caption, table = _inline(block.caption), plain_table(block)
            yield _folded(caption, table) if block.folded else f"{caption}\n\n{table}"
        case Picture():
            yield f"![{_inline(block.alt)}]({block.file})"
            yield _inline(block.caption)
        case Example():
            yield f"### {_inline(block.title)}"
            yield f"{_fenced(block.problem)}\n\ngold: {_inline(block.gold)}"
            said = [f"{_inline(completion.title)}\n\n{_fenced(completion.text)}" for completion in block.completions]
            yield _folded(f"{len(said)} completions", "\n\n".join(said)) if block.folded else "\n\n".join(said)


def plain_table(table: Table) -> str:
    """As Markdown, without its caption."""
    first, *_ = table.head
    rule = ["---" if name == first or name in table.words else "---:" for name in table.head]
    rows = [[_inline(cell) for cell in row] for row in (table.head, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _inline(text: str) -> str:
    """Text that stays text within a line of Markdown, whatever it looks like."""
    line = " ".join(printable(text).split())
    return re.sub(r"([\\`*|~]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|\](?=[(\[:]))", r"\\\1", line)


def _fenced(text: str) -> str:
    """A block of code, in a fence that the text cannot close."""
    longest = max((len(list(run)) for char, run in groupby(text) if char == "`"), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{printable(text)}\n{fence}"
