"""Where answers stand that nobody asked to be boxed: the rules of lenient extraction, in their order."""

import re
from collections.abc import Callable
from functools import partial

from rewards.latex.brackets import UnreadableError, split
from rewards.latex.units import is_known

MAX_CLAIM = 1000
"""Characters that are looked at after "the answer is"."""
MAX_CLAIMS = 8
"""Such statements that are tried, the last one first."""
MAX_OUTSIDE = 100
"""Characters outside formulas of a text that can be an answer by itself."""

Rule = Callable[[str], str | None]
"""From the text to the answer; None or empty where the rule does not apply."""

_NOISE = re.compile(r"<\|[^|<>\n]{1,30}\|>|</s>|```\w*+|`")
"""Tokens that end a turn, and marks of code."""
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=[^\s*])|(?<=[^\s*])\*\*(?![\w(\\*])")  # not the power 2**3
_TAG = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)
_END_TAG = re.compile(r"</(?:final_?)?answer>", re.IGNORECASE)
_MARKED = re.compile(r"####[ \t:]*+([^\n]*+)")
_STATED = re.compile(
    r"\banswers?(?:[ \t]+(?:to|for|of)\b[^.\n]{1,80}?)?\s{1,3}(?:is|are|would be|must be|should be)\b(?:[ \t]*+:)?"
    r"|\b(?:solutions?|roots?)(?:[ \t]+(?:to|for|of)\b[^.\n]{1,80}?)? (?:is|are)\b(?! as\b)"
    r"|\banswers?\s{0,3}[:=]|\bfinal answer[ \t]*+\n",
    re.IGNORECASE,
)
_MINERVA = re.compile(r"\bFinal Answer:\s{1,3}The final answer is\b:?")
_LINE_A = re.compile(r"^A:", re.MULTILINE)
_NUMBER = re.compile(
    r"(?<![\w.^\\])[-+−]?[$€£]?(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?|\.\d++)(?:/\d++)?(?:\s?\\?%)?"
    r"(?!(?:st|nd|rd|th)\b)"
)


def answer_without_box(text: str, *, choice: bool) -> tuple[str, str] | None:
    """The answer by the first rule that applies, and the rule's name; None if none does. Linear time."""
    text = _BOLD.sub("", _NOISE.sub("", text))
    return next(
        ((answer, name) for name, rule in (_OF_CHOICES if choice else _OF_VALUES) if (answer := rule(text))), None
    )


def final_answer(text: str) -> str | None:
    """The answer in the format that Minerva's prompt asks for (arXiv:2206.14858): as explicit as a box."""
    return _claimed(text, _MINERVA)


def _tagged(text: str) -> str | None:
    *_, last = _TAG.split(text)
    if last == text:
        return None
    content = _END_TAG.split(last)[0]
    return _claimed(content, _STATED) or _alone(content) or content.strip()


def _after_mark(text: str) -> str | None:
    """``#### 72``, the end of every GSM8K solution; not the Markdown heading ``#### Step 2: the area``."""
    for line in reversed(_MARKED.findall(text)):
        if (answer := _alone(line)) and (not answer[:2].isalpha() or " " not in answer):
            return answer
    return None


def _claimed(text: str, label: re.Pattern[str], letter: bool = False) -> str | None:
    """What follows the last "the answer is" after which something like an answer stands."""
    for end in [match.end() for match in label.finditer(text)][: -MAX_CLAIMS - 1 : -1]:
        claim = _sentence(text[end : end + MAX_CLAIM])
        if answer := (_letter(claim) if letter else None) or _of_sentence(claim):
            return answer
    return None


def _last_formula(text: str) -> str | None:
    """A lone letter is a name that the text speaks of, unless there is nothing else."""
    contents = [content for _, _, content in _formulas(text)]
    return next((_result(c) for c in reversed(contents) if len(c) > 1 or not c.isalpha()), None)


def _last_number(text: str) -> str | None:
    numbers: list[str] = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


# ---- choices

_OPTION = re.compile(r"\b(?i:option|choice|choose|select|pick|answer is)[ \t]*+:?[ \t]*+\(?([A-J])\b")
_LISTED_LETTER = re.compile(r"(?<![\w(])(?:\(([A-J])\)|([A-J])[).:](?!\w))")
_BARE_LETTER = re.compile(r"(?<![\w'’])(?:A(?! (?!is\b|because\b|since\b|or\b|and\b)[a-z])|[B-HJ])(?![\w'’])")
# neither the article nor the pronoun is a choice


def _letter(text: str) -> str | None:
    r"""The letter that is chosen: "option B", a single "(B)", "B." in front, else the last one that stands alone."""
    if named := _OPTION.findall(text):
        return str(named[-1])
    listed = list(_LISTED_LETTER.finditer(text))
    bare = _BARE_LETTER.findall(text)
    if listed and (len(listed) == 1 or listed[-1][1]) and (listed[-1][1] or listed[-1].start() == 0):
        return str(listed[-1][1] or listed[-1][2])
    return str(bare[-1]) if bare else None


# ---- sentences and formulas

_CLOSES = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_DELIMITER = re.compile(r"\\\\|\\\$|\$\$?|\\[()\[\]]")
_END = re.compile(
    r"[.。](?=\s|$)|\n|<\||[,;]? (?:since|because|which|where|so|as)\b|, (?!and\b|or\b)(?=[a-z]{2})", re.IGNORECASE
)
_IS = re.compile(r"\b(?:is|are|equals)\b", re.IGNORECASE)
_HEDGE = re.compile(
    r"\A(?:(?:approximately|about|exactly|simply|just|therefore|thus|then|equal to|given by|option|choice)\b|[:=\s])++",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\A[A-Za-z][A-Za-z ]{1,20}:\s+(?=[-$\\(\d])")
"""``Total: 42``"""
_SENTENCE = re.compile(
    r"(?!(?:sqrt|frac|log|sin|cos|tan|cot|sec|csc|arc|infty)\b)(?:[A-Za-z]{3,}+|[A-Z][a-z])\b[^=:]*\d[^=:]*\Z"
)
"""Words before a number: "Janet makes $18 per day"."""
_LATEX_WORDS = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s*+\{[^{}]*+\}|\\[a-zA-Z]++")
_WORD = re.compile(r"[a-zA-Z][a-zA-Z'’]++")
_PROSE = re.compile(
    r"\b(?:is|are|was|were|be|it|its|this|that|these|those|the|so|therefore|thus|hence|because|since|we|i|you|let|get|have|"
    r"has|which|but|here|there|as|follows|given|correct|incorrect|wrong|right|found|obtained|above|below)\b",
    re.IGNORECASE,
)
_MAX_WORDS = 4
_VARIABLE = re.compile(r"(?<![a-zA-Z])[a-zA-Z]{1,2}(?![a-zA-Z])")
_CONJUNCTION = re.compile(r"(?<![a-zA-Z\\])(?:and|or)")


def _sentence(text: str) -> str:
    """The rest of a sentence: what stands in a formula does not end it."""
    text = text.lstrip(" \t\n*:")
    formulas = _formulas(text)
    ends = (match.start() for match in _END.finditer(text))
    end = next((end for end in ends if not any(a < end < b for a, b, _ in formulas)), len(text))
    return text[:end].strip()


def _of_sentence(text: str) -> str | None:
    """The answer in "5 apples", "the volume of $V$ is 120", "it is $x=2$ or $x=3$"; None if there is none."""
    if answer := _alone(text):
        return answer
    for verb in reversed(list(_IS.finditer(text))):
        if answer := _alone(text[verb.end() :]):
            return answer
    formulas = [content for _, _, content in _formulas(text)]
    if formulas:
        return next((_result(c) for c in formulas if len(c) > 1 or not c.isalpha()), formulas[0])
    return _last_number(text)


def _alone(text: str) -> str | None:
    """A short text that is an answer by itself, ready to be compared; None for prose."""
    text = _LABEL.sub("", _HEDGE.sub("", text.strip(), count=1), count=1).strip(" \t*_\"'“”").rstrip(" .,;。")
    if not text or "\n" in text.strip("$\n") or len(text) > MAX_CLAIM:
        return None
    formulas = _formulas(text)
    outside = _outside(text, formulas)
    if len(outside) > MAX_OUTSIDE:
        return None
    words = _WORD.findall(_LATEX_WORDS.sub(" ", outside))
    if len(words) > _MAX_WORDS or _PROSE.search(outside):
        return None
    if not formulas:
        return None if _SENTENCE.match(text) else _result(text)
    if not all(word in ("and", "or") or is_known(word) for word in words):
        return None
    if len(formulas) == 1 and not outside.strip():
        return _result(formulas[0][2])
    bare = _DELIMITER.sub(lambda match: match[0] if match[0] in (r"\\", r"\$") else " ", text)
    return " ".join(bare.split())


def _formulas(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of what stands between LaTeX's delimiters for mathematics."""
    found: list[tuple[int, int, str]] = []
    opened: re.Match[str] | None = None
    for delimiter in _DELIMITER.finditer(text):
        mark = delimiter[0]
        if opened is not None and mark == _CLOSES[opened[0]]:
            content = text[opened.end() : delimiter.start()]
            if mark == "$" and content[:1].isdigit() and content[-1].isspace():  # $10 and $20
                opened = delimiter
                continue
            if content.strip():
                found.append((opened.start(), delimiter.end(), content.strip()))
            opened = None
        elif mark in _CLOSES:  # one that was open before it is a currency sign
            opened = delimiter
    return found


def _outside(text: str, formulas: list[tuple[int, int, str]]) -> str:
    edges = [0, *(edge for start, end, _ in formulas for edge in (start, end)), len(text)]
    return " ".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _result(formula: str) -> str:
    """What a calculation ends in: 4 of ``2 + 2 = 4``. An equation in a variable is an answer as it stands."""
    try:
        sides = [side.strip() for side in split(formula, "=")]
        is_list = len(split(formula, ",", ";")) > 1 or _CONJUNCTION.search(formula) is not None
    except UnreadableError:
        return formula
    if len(sides) == 1 or is_list or not sides[-1] or any(side[-1:] in ("<", ">", "!") for side in sides):
        return formula
    states_variable = _VARIABLE.search(_LATEX_WORDS.sub("", sides[0])) is not None
    return sides[-1] if len(sides) > 2 or not states_variable else formula


_OF_VALUES: tuple[tuple[str, Rule], ...] = (
    ("<answer>", _tagged),
    ("after ####", _after_mark),
    ("stated answer", partial(_claimed, label=_STATED)),
    ("line A:", partial(_claimed, label=_LINE_A)),
    ("whole text", _alone),
    ("last formula", _last_formula),
    ("last number", _last_number),
)
_OF_CHOICES: tuple[tuple[str, Rule], ...] = (
    *_OF_VALUES[:2],
    ("stated answer", partial(_claimed, label=_STATED, letter=True)),
    ("choice letter", _letter),
    ("whole text", _alone),
)
