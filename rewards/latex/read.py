"""From canonical text to the structure of an answer: what is a list, an interval, an equation, a quantity, a choice or
words, and what is left for algebra. Nothing is evaluated here.
"""

import re
from functools import lru_cache

from rewards.latex.answer import (
    Answer,
    Choice,
    Collection,
    Expression,
    Matrix,
    Quantity,
    Relation,
    Words,
    is_list,
    times,
)
from rewards.latex.brackets import MAX_DEPTH, UnreadableError, closes_at, split, tokens
from rewards.latex.names import FUNCTIONS, denies
from rewards.latex.numbers import number, number_in_words
from rewards.latex.units import is_known, unit

_SYNONYMS = {
    **dict.fromkeys(
        ("no solution", "no solutions", "none", "empty set", "no real solution", "no real solutions"), r"\emptyset"
    ),
    **dict.fromkeys(("there is no solution", "there are no solutions", r"\{\}", r"\{ \}"), r"\emptyset"),
    **dict.fromkeys(("infinity", r"+\infty"), r"\infty"),
    **dict.fromkeys(("does not exist", "undefined"), r"\text{dne}"),
    **dict.fromkeys(("all real numbers", "all reals", r"\mathbb{r}"), r"(-\infty,\infty)"),
}
_LEADING = re.compile(
    r"(?:\\(?:approx|implies|Rightarrow|therefore)(?![a-zA-Z])|=|:|(?:a|an|the) (?=[a-z]{4})"
    r"|\\text\{ ?(?:[Tt]he )?[Aa]nswer(?: is)? ?:? ?\})\s*"
)
_IN_PARENTHESES = re.compile(r"([+-]?)\((-?)([^(),]*)\)|\((-?\d+)\)/(\d+)|\((-?\d+)\)/\((\d+)\)|(-?\d+)/\((\d+)\)")
"""``-(\frac{3}{4})``, ``-(-6)``, ``(-3)/4``: a number with parentheses where nothing is to be computed."""
_LETTER = re.compile(r"(?:(?i:option|choice|answer):? ?)?(?:\(([A-Ja-j])\)|([A-J])[.:)]?)")
_OPTION = re.compile(r"(?:\(([A-J])\) ?|([A-J])(?:[.:)] ?| (?=[A-Z][a-z])))([a-zA-Z]{2}.*|[-\d\\$].*)")
_TEXT_OPTION = re.compile(r"\\text\{\(([A-J])\) ?\} ?(.+)")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"[a-zA-Z][a-zA-Z' .:!?-]*")
_SHORT_WORD = re.compile(r"(?i:yes|no|odd)|[A-Z]{3}|[A-Z][a-z]{1,2}|.* .*")
_LONG_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{3}")
_JOINER = re.compile(
    r"\\text ?\{[, ]*(?:and|or)[, ]*\}|(?:, ?| )(?:and|or)(?![a-zA-Z]) ?|,?\\(?:and|or|lor|land|vee)(?![a-zA-Z])"
    r"|(?<=[\d)}])(?:and|or)(?=[\d({\\]|[a-zA-Z]\b)"
)
_RELATION = re.compile(r"\\(?:leq|geq|neq|approx|in|equiv|sim|to|mapsto|rightarrow|subset|propto)(?![a-zA-Z])|[=<>]")
_ONLY_DIGITS = re.compile(r"[\d,+-]*")
_THOUSANDS = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_NAMED_TUPLE = re.compile(r"[A-Z](?=\([^()]*,[^()]*\)$)")
_SET_BUILDER = re.compile(r"[a-zA-Z](?: ?\\in ?(?:\\mathbb\{R\}|R))? ?(?:\\mid|\||:) ?(.*)")
_MATRIX = re.compile(r"\\begin ?\{([pbBv]?matrix|smallmatrix|array)\}(?: ?\{[clr| ]*\})?(.*)\\end ?\{\1\}", re.DOTALL)
_ROWS = re.compile(r"\\begin ?\{(cases|aligned|align\*?|gathered)\}(.*)\\end ?\{\1\}", re.DOTALL)
_CURRENCY = re.compile(r"^([+-]?) ?(?:\\text ?\{)?(\$|€|£|₹|¥|USD|US\$|Rs\.?)(?:\})? ?([+-]?)(?=[\d.\\(])")
_CLOCK = re.compile(r"^(\d\d?)(:[0-5]\d)?(?::[0-5]\d)?( ?)(?:\\text ?\{ ?)?([aApP])(\.?) ?[mM]\.? ?\}?$")
_UNIT_TEXT = re.compile(
    r"^(.*?[^\s+*/^_=<>,(-])[\s-]*"
    r"((?:\(|/ ?)?\\text ?\{[^{}]*\}(?:[\s(/*)]|\\cdot|\\text ?\{[^{}]*\}|\^\d|\^\{-?\d\})*)$"
)
_UNIT_WORDS = re.compile(
    r"^(.*(?:[\d)}]|\\pi(?![a-zA-Z]))) ?"
    r"((?<=[\d)}i]| )[a-zA-Z][a-zA-Z .]*(?:\^\d|\^\{-?\d\})?(?:/ ?[a-zA-Z]+(?:\^\d)?)?)$"
)
_UNIT_SIGN = re.compile(r"^(.*[\w)}]) ?([%$€£¢]|°(?: ?(?:\\text\{)?[CF]\}?)?|%(?: ?\\text\{[a-z ]*\}))$")
_FUNCTION = re.compile(rf"\\(?:{'|'.join(FUNCTIONS)})(?![a-zA-Z])")
_NO_UNITS = frozenset([*FUNCTIONS, "exp", "sqrt", "pi", "mod"])


@lru_cache(maxsize=4096)
def read(latex: str) -> Answer:
    """The structure of an answer or a gold, given as `rewards.latex.text.normalise` writes it.

    Raises:
        UnreadableError: it has none.
    """
    return _read(latex, 0)


def _read(latex: str, depth: int) -> Answer:
    if depth > MAX_DEPTH:
        raise UnreadableError("brackets too deep")
    latex = latex.strip()
    latex = latex[leading.end() :] if (leading := _LEADING.match(latex)) else latex
    latex = latex.removesuffix(",").strip()
    if not latex:
        raise UnreadableError("empty")
    if (found := number(latex) or number(_without_parentheses(latex))) is not None:
        return Expression(latex, found)
    latex = _SYNONYMS.get(_TEXT.sub(r"\1", latex).strip().lower(), latex)
    for reading in _READINGS:
        if (answer := reading(latex, depth)) is not None:
            return answer
    return Expression(latex, None)


def _without_parentheses(latex: str) -> str:
    match = _IN_PARENTHESES.fullmatch(latex)
    if match is None:
        return latex
    sign, minus, inner, *fraction = match.groups()
    if inner is not None:
        return ("-" if (sign == "-") != (minus == "-") else "") + inner.strip()
    top, bottom = (part for part in fraction if part is not None)
    return f"{top}/{bottom}"


def _choice(latex: str, depth: int) -> Answer | None:
    plain = _TEXT.sub(r"\1", latex).strip()
    if match := _LETTER.fullmatch(plain):
        return Choice((match[1] or match[2]).upper(), None)
    if match := _TEXT_OPTION.fullmatch(latex):
        return Choice(match[1], _read(match[2], depth + 1))
    if (match := _OPTION.fullmatch(plain)) and not _JOINER.search(plain) and not denies(match[3]):
        return Choice(match[1] or match[2], _read(match[3], depth + 1))
    return None


def _number_in_words(latex: str, _: int) -> Answer | None:
    value = number_in_words(_TEXT.sub(r"\1", latex))
    return None if value is None else Expression(str(value), number(str(value)))


def _words(latex: str, depth: int) -> Answer | None:
    spelled = _TEXT.sub(r" \1 ", latex).strip()
    if (match := _TEXT.fullmatch(latex)) and (not _ONLY_WORDS.fullmatch(spelled) or _JOINER.search(spelled)):
        inner = _read(match[1], depth + 1)  # \text{42}: what is in it is the answer
        is_phrase = isinstance(inner, Expression) and inner.number is None and _LONG_WORD.search(spelled)
        return Words(_words_of(spelled)) if is_phrase else inner
    if not _ONLY_WORDS.fullmatch(spelled):
        return None
    if spelled == latex and len(spelled) < 4 and not _SHORT_WORD.fullmatch(spelled):
        return None  # xy is a product
    return Words(_words_of(spelled))


def _words_of(text: str) -> str:
    """Lower case, without punctuation and a leading article."""
    return re.sub(r"^(?:a|an|the) ", "", " ".join(re.sub(r"[^\w\s'-]", " ", text.lower()).split()))


def _list(latex: str, depth: int) -> Answer | None:
    parts = _parts(latex)
    return None if parts is None else Collection("list", tuple(_read(part, depth + 1) for part in parts))


def _parts(latex: str, *, in_brackets: bool = False) -> list[str] | None:
    """The parts of a list; None if it has only one. Raises UnreadableError."""
    joined = _JOINER.sub(", ", latex)
    # 1,234 \text{ cm} and 1,234, 5,678 have thousands; (100,200) and (1,100\pi) are pairs.
    if ", " in joined or not (in_brackets or _ONLY_DIGITS.fullmatch(joined)):
        joined = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), joined)
    parts = next((parts for separator in ";," if len(parts := split(joined, separator)) > 1), None)
    if parts is None:
        return None
    parts = [part.strip() for part in parts]
    if joined != latex:  # "1, 2, and 3" has an empty part
        parts = [part for part in parts if part]
    if not parts:
        raise UnreadableError("a list of nothing")
    return parts


def _relation(latex: str, depth: int) -> Answer | None:
    sides, operators = [], []
    start = 0
    for token, at, level in tokens(latex):
        if level == 0 and _RELATION.fullmatch(token):
            sides.append(latex[start:at].strip())
            operators.append(token)
            start = at + len(token)
    if not operators:
        return None
    sides.append(latex[start:].strip())
    if not sides[0] and operators == ["="]:
        return _read(sides[1], depth + 1)
    return Relation(tuple(_read(side, depth + 1) for side in sides), tuple(operators), tuple(sides))


def _plus_minus(latex: str, depth: int) -> Answer | None:
    if not _PLUS_MINUS.search(latex):
        return None
    above = _PLUS_MINUS.sub(lambda sign: "+" if sign[1] == "pm" else "-", latex)
    below = _PLUS_MINUS.sub(lambda sign: "-" if sign[1] == "pm" else "+", latex)
    return Collection("list", tuple(_read(both.strip().removeprefix("+"), depth + 1) for both in (above, below)))


def _union(latex: str, depth: int) -> Answer | None:
    parts = split(latex, r"\cup")
    return Collection("union", tuple(_read(part, depth + 1) for part in parts)) if len(parts) > 1 else None


def _bracketed(latex: str, depth: int) -> Answer | None:
    latex = _NAMED_TUPLE.sub("", latex, count=1)
    opening = next((mark for mark in (r"\{", "(", "[", "{") if latex.startswith(mark)), None)
    if opening is None or closes_at(latex) != len(latex):
        return None
    closing = r"\}" if latex.endswith(r"\}") else latex[-1]
    inner = latex[len(opening) : -len(closing)].strip().removesuffix(",")
    if opening == r"\{" and (match := _SET_BUILDER.fullmatch(inner)):
        return _read(match[1], depth + 1)
    if (parts := _parts(inner, in_brackets=True)) is not None:
        content = tuple(_coordinate(_read(part, depth + 1)) for part in parts)
        return Collection("set", content) if "{" in opening else Collection("brackets", content, opening + closing)
    one = _read(inner, depth + 1)
    if opening == r"\{":
        return Collection("set", one.parts if is_list(one) else (one,))
    if is_list(one) and opening != "{":  # (\pm 3)
        return Collection("brackets", one.parts, opening + closing)
    return one if opening + closing in ("()", "{}") or isinstance(one, Matrix) else None


def _coordinate(answer: Answer) -> Answer:
    """The ``C`` of ``(A, B, C)`` is a variable and no choice."""
    return Expression(answer.letter, None) if isinstance(answer, Choice) and answer.text is None else answer


def _matrix(latex: str, depth: int) -> Answer | None:
    match = _MATRIX.fullmatch(latex)
    if match is None or r"\begin" in match[2] or match[1] == "vmatrix":
        return None
    rows = [row for row in match[2].strip().removesuffix(r"\\").split(r"\\") if row.strip()]
    if not rows:
        raise UnreadableError("a matrix of nothing")
    if match[1] == "array" and all("=" in row for row in rows):  # a system of equations
        return _read(", ".join(rows).replace("&", ""), depth + 1)
    return Matrix(tuple(tuple(_read(cell, depth + 1) for cell in row.split("&")) for row in rows))


def _rows(latex: str, depth: int) -> Answer | None:
    """Equations below each other."""
    match = _ROWS.fullmatch(latex)
    if match is None or r"\begin" in match[2]:
        return None
    return _read(match[2].strip().removesuffix(r"\\").replace("&", "").replace(r"\\", ", "), depth + 1)


def _ratio(latex: str, depth: int) -> Answer | None:
    parts = split(latex, ":")
    return Collection("ratio", tuple(_read(part, depth + 1) for part in parts)) if len(parts) > 1 else None


def _clock(latex: str, _: int) -> Answer | None:
    r"""``5:30 \text{ p.m.}`` and ``6 PM``; not the product ``5am``."""
    match = _CLOCK.fullmatch(latex)
    if match is None or not (match[2] or match[3] or match[5] or "text" in latex):
        return None
    half = unit(f"{match[4].lower()}m")
    assert half is not None
    return Quantity(_read(match[1] + (match[2] or ":00"), 0), half)


def _quantity(latex: str, depth: int) -> Answer | None:
    if match := _CURRENCY.match(latex):
        value = _read(match[1] + match[3] + latex[match.end() :], depth + 1)
        if isinstance(value, Quantity):  # $5 dollars
            return value
        if _is_sum(latex[match.end() :]):
            return None
        currency = unit("$" if match[2] == "US$" else match[2])
        return Quantity(value, currency) if currency is not None else None
    for pattern in (_UNIT_SIGN, _UNIT_TEXT, _UNIT_WORDS):
        if (match := pattern.match(latex)) is None:
            continue
        text = _TEXT.sub(r" \1 ", match[2]).replace(r"\cdot", "*")
        if (pattern is _UNIT_WORDS and not _names_a_unit(text)) or (text == "°" and _FUNCTION.search(match[1])):
            continue
        if pattern is _UNIT_SIGN and _is_sum(match[1]):
            continue
        if (of := unit(text)) is not None:
            value = times(_read(match[1], depth + 1), of.scale)
            return Quantity(value, of) if of.powers else value
    return None


def _is_sum(latex: str) -> bool:
    return len(split(latex.lstrip("+-"), "+", "-")) > 1


def _names_a_unit(words: str) -> bool:
    """Whether bare letters after a number can be no product of variables."""
    first = re.split(r"[ /^]", words.strip())[0].rstrip(".")
    if first in _NO_UNITS:
        return False
    return is_known(first) or (len(first) > 3 and first.isalpha()) or "." in words


_READINGS = (
    *(_choice, _number_in_words, _list, _words, _relation, _union, _bracketed, _rows, _matrix, _plus_minus, _clock),
    *(_quantity, _ratio),
)
