r"""What is never handed to sympy: text that costs it seconds or gigabytes, and problems restated instead of solved.

The figures reject none of the golds of MATH and GSM8K. They stop most hostile inputs in microseconds; what passes
them and still hangs is killed by `rewards.pool`.
"""

import re

MAX_LENGTH = 1_000
MAX_DEPTH = 24

_TOO_LARGE = re.compile(
    r"\d{60}"
    r"|\d{5}\s*!|![\s)}\]]*!"  # factorials of large numbers, and of factorials
    r"|\\[dt]?binom\s*\{[^{}]*\d{5}"
)
_MAX_COUNTS = {"=": 6, ",": 200, "&": 64}
_OPERATOR = re.compile(
    r"\\(?:sum|prod|i{1,3}nt|oint|lim|limsup|liminf|det|gcd|lcm|max|min|Gamma)(?![a-zA-Z])"
    r"|\\operatorname\*?\s*\{\s*(?:gcd|lcm|det|max|min|lim)"
    r"|\\(?:text|mathrm)\s*\{\s*(?:gcd|lcm|det)\s*\}"
    r"|\\begin\s*\{[vV]matrix\}"
    r"|\\frac\s*\{\s*(?:d|\\partial)\b[^{}]*\}\s*\{\s*(?:d|\\partial)"
)
_ARITHMETIC = re.compile(r"[\d)}]\s*(?:[-+*÷×]|\\(?:times|cdot|div)(?!\s*10\s*\^))\s*[\d({\\]")


def too_large(latex: str) -> bool:
    """Whether sympy might need seconds for it. Linear time."""
    return (
        len(latex) > MAX_LENGTH
        or _TOO_LARGE.search(latex) is not None
        or any(latex.count(mark) > most for mark, most in _MAX_COUNTS.items())
        or _depth(latex) > MAX_DEPTH
        or any("^" in exponent or re.search(r"\d{5}|!", exponent) for exponent in _exponents(latex))
    )


def restates(latex: str) -> bool:
    r"""Whether it names an operation for the verifier to carry out: a sum, a gcd, a derivative, a determinant, …"""
    return _OPERATOR.search(latex) is not None


def unevaluated(latex: str) -> bool:
    r"""Whether numbers are left to be added or multiplied after the last ``=``; ``1.5\times10^3`` is a number."""
    return _ARITHMETIC.search(latex.rpartition("=")[2]) is not None


def _depth(latex: str) -> int:
    depth = deepest = 0
    for character in latex:
        if character in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")}]":
            depth -= 1
    return deepest


def _exponents(latex: str) -> list[str]:
    """What follows each caret: a group up to its closing brace, else everything up to the next brace or operator."""
    latex = latex.replace("**", "^")
    return [_argument(latex, caret.end()) for caret in re.finditer(r"\^\s*", latex)]


def _argument(latex: str, start: int) -> str:
    if not latex.startswith(("{", "("), start):
        bare = re.compile(r"[-+]?[\w.^!]*").match(latex, start)
        return bare[0] if bare else ""
    depth = 0
    for end in range(start, len(latex)):
        depth += (latex[end] in "{(") - (latex[end] in "})")
        if depth == 0:
            break
    return latex[start : end + 1]
