r"""The trivial spellings of LaTeX: what differs only in these is the same text."""

import re

_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"(?<!\\),\\!\s*|\{,\}", ","),
        (r"\\(?:left|right|displaystyle)(?![a-zA-Z])|(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " "),
        # A letter in words is that letter; at the end, after a number, it is a unit, which math-verify knows as such.
        (r"\\(?:text|mathrm)\s*\{([a-zA-Z])\}(?!$)|(?<!\d)(?<!\d )\\(?:text|mathrm)\s*\{([a-zA-Z])\}", r"\1\2"),
        (r"(?<!\\)%", r"\\%"),
        ("−", "-"),
        ("°", r"^\\circ"),
        (r"\s+", " "),
        (r"(?<![\w,]) | (?!\w)", ""),
        # Bare, math-verify takes the t of \sin t for tonnes.
        (r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\d|\^\{-?\d+\})?) ?([a-zA-Z])(?![a-zA-Z])", r"\1{\2}"),
    )
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def normalise(latex: str) -> str:
    r"""Drop what changes the print and not the meaning: delimiters, spacing, sizes, a final full stop.

    Example: ``normalise(r"$\left(\dfrac{1}{2},\; 3\right)$.") == r"(\frac{1}{2}, 3)"``. Linear time. Spaces stay where
    they can have a meaning: ``1 1/2`` is not ``11/2``, and ``1, 234`` is not a thousand and some.
    """
    latex = latex.strip().rstrip(".").strip()
    for opening, closing in _DELIMITERS:
        if latex.startswith(opening) and latex.endswith(closing) and len(latex) > len(opening + closing):
            latex = latex[len(opening) : -len(closing)].strip()
    if words := _WORDS.fullmatch(latex):
        latex = words[1]
    for pattern, replacement in _REWRITES:
        latex = pattern.sub(replacement, latex)
    return latex.strip().rstrip(".")
