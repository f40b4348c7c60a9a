"""Names of functions and letters, and what can be the name of a value: the left side of ``x = 5``, ``f(x) = 2x``,
``|AB| = 3``, ``a + b = 7``."""

import re

FUNCTIONS = "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc ln log".split()
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell"
).split()
"""Commands that are letters; ``\\pi`` is a number."""

_LETTER = rf"(?:[a-zA-Z]|\\(?:{'|'.join(GREEK)})(?![a-zA-Z]))"
_SUBSCRIPT = r"(?:_(?:\w|\{(?:[\w ,]|\\text\{[^{}]*\})+\}))?"
_ARGUMENTS = r"(?:\([\w, \\'{}]*\))?"
_SIMPLE = rf"(?:{_LETTER}'*{_SUBSCRIPT}'*(?:\^\{{?-1\}}?)?{_ARGUMENTS}|[A-Z]{{2,4}}|\|[A-Z]{{1,2}}\|)"
_FUNCTION = rf"\\(?:{'|'.join(FUNCTIONS)}|max|min|deg) ?(?:[a-zA-Z]|\\[a-z]+|\([a-zA-Z+ -]*\)|[A-Z]{{1,3}})"
_MARKED = r"(?:m ?\\angle|\\angle|\\triangle|\\overline|\\overrightarrow|\\vec|\\hat) ?\{?[a-zA-Z]{1,4}\}?"
_VARIABLE = re.compile(
    rf"{_SIMPLE}|{_MARKED}|{_FUNCTION}|\\mathbb\{{[A-Z]\}}|\\frac\{{[A-Zd][A-Zxyt]?\}}\{{[A-Zd][A-Zxyt]?\}}"
    rf"|\({_LETTER}{_SUBSCRIPT}(?:, ?{_LETTER}{_SUBSCRIPT})+\)"  # (x, y)
)
_SUM = re.compile(rf"{_SIMPLE}(?: ?(?:[-+*/:]|\\cdot)? ?{_SIMPLE})++")
_WORDS = re.compile(r"\\text ?\{[a-zA-Z ]+\}|[a-zA-Z]{4,}")
_DENIAL = re.compile(
    r"\b(?:not?|n[o']?t|isnt|arent|wrong|incorrect|never|false|impossible|except|unlike|without|neither|nor|none|other|but|"
    r"anything|than|different|unequal|maybe|instead)\b",
    re.IGNORECASE,
)


def denies(text: str) -> bool:
    """Whether words say that what they are about is not meant."""
    return _DENIAL.search(text) is not None


def is_variable(latex: str) -> bool:
    """Whether a text is the name of one value: a variable, a function's value, a segment, an angle, a point's tuple."""
    return _VARIABLE.fullmatch(latex) is not None


def is_name(latex: str) -> bool:
    r"""Whether a text is a variable, a sum or product of some, or words like ``\text{Area}``."""
    if is_variable(latex):
        return True
    if is_phrase(latex):
        return not denies(latex)
    return _SUM.fullmatch(latex) is not None


def is_phrase(latex: str) -> bool:
    """Whether a text is words."""
    return _WORDS.fullmatch(latex) is not None
