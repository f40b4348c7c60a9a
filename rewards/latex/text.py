r"""One spelling for each thing: what differs only in these is the same text.

Everything after this module reads canonical text and need not know that there is a ``\dfrac``.
"""

import re
import unicodedata

from rewards.latex.names import FUNCTIONS

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOTS = (("√", ""), ("∛", "[3]"), ("∜", "[4]"))
_SIGNS = (
    "α alpha β beta γ gamma δ delta θ theta λ lambda μ mu π pi ρ rho σ sigma τ tau φ phi ω omega ≤ leq ≥ geq ≠ neq "
    "≈ approx ± pm ∓ mp ∈ in ∪ cup ∩ cap ∞ infty ∅ emptyset … ldots ∠ angle ÷ div · cdot ⋅ cdot"
).split()
_CHARACTERS = str.maketrans(
    {
        **{sign: rf"\{command} " for sign, command in zip(_SIGNS[::2], _SIGNS[1::2], strict=True)},
        **dict.fromkeys("−–—‐", "-"),
        **dict.fromkeys("×∗", "*"),
        **dict.fromkeys("⁄∕", "/"),
        **dict.fromkeys("：∶", ":"),
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
        **{"′": "'", "º": "°", "∣": "|", "。": ".", "（": "(", "）": ")", "ℝ": r"\mathbb{R}"},
    }
)

_SYNONYMS = {
    " ": "left right middle limits nolimits displaystyle textstyle scriptstyle mathopen mathclose mathrel mathstrut "
    "hfill tiny small normalsize large Large huge boldmath nonumber quad qquad enspace thinspace medspace thickspace "
    "space par".split(),
    r"\frac": "dfrac tfrac cfrac nicefrac".split(),
    r"\binom": "dbinom tbinom".split(),
    r"\text": "textrm textnormal textbf textit textsf texttt mbox hbox emph mathrm operatorname rm".split(),
    r"\font": "mathbf boldsymbol mathit mathsf mathtt mathcal bm pmb bf it textcolor color".split(),
    r"\leq": "le leqslant".split(),
    r"\geq": "ge geqslant".split(),
    r"\neq": ["ne"],
    "<": ["lt"],
    ">": ["gt"],
    r"\ldots": "dots cdots dotsc dotsb".split(),
    r"\approx": "simeq thickapprox".split(),
    r"\emptyset": ["varnothing"],
    r"\cup": ["bigcup"],
    r"\log": ["lg"],
    r"\infty": ["infin"],
    r"\mod": ["bmod"],
    r"\phi": ["varphi"],
    r"\epsilon": ["varepsilon"],
    r"\\": ["cr"],
    r"\{": ["lbrace"],
    r"\}": ["rbrace"],
    "|": "lvert rvert vert".split(),
    "(": "lparen langle lgroup".split(),
    ")": "rparen rangle rgroup".split(),
    "[": ["lbrack"],
    "]": ["rbrack"],
    "°": "degree textdegree".split(),
    "*": "times ast".split(),
    ":": ["colon"],
    "€": ["euro"],
    "£": ["pounds"],
    "'": ["prime"],
    "i": ["imath"],
}
_COMMANDS = {command: meaning for meaning, commands in _SYNONYMS.items() for command in commands}
"""Commands that only change the print, and the one name for those that have several."""
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?")

_GLUED = re.compile(
    r"\\left\s*\\\{(?=\s*\\begin)(?=.*\\right\s*\.)|\\(?:left|right)\s*\.|\\q?quad(?=[a-z])"
    r"|(?P<degrees>(?<=\^)\s*\\circ(?=\\))"
    r"|(?P<gap>(?<=[\d})])\s*\\(?:q?quad|par)(?![a-zA-Z])\s*(?=\d|\(|\\frac|[a-z]\s*=))",
    re.DOTALL,
)
"""What has to be seen before commands are replaced: ``\left.``, and wide space between two answers."""

_FUNCTIONS = "|".join([*FUNCTIONS, "lg", "exp"])
_BARE = r"(\\[a-zA-Z]+|[^\\{}\s])"
_BRACED = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_SIMPLE = r"(?:[^{}\\]|\\[a-zA-Z]++ ?+(?:\{[^{}]*+\})*+)*+"
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # What only moves the print
        (
            r"\\(?:v|h)?phantom\s*(?:\{[^{}]*\}|.)|\\(?:tag|hspace|vspace|label)\*?\s*\{[^{}]*\}|\\[bB]igg?[lrm]?(?![a-zA-Z])",
            "",
        ),
        (r"\\font\{(?:blue|red|green|black|purple|orange|teal|magenta)\}|\\font(?![a-zA-Z])|\\underline(?=\s*\{)", ""),
        (r"(?<=\d),\s*\\!\s*(?=\d{3})|(?<!\\)\\!", ""),
        (r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d{3})", ""),
        (r"\{([,:;=/+-])\}", r"\1"),
        (r"(\\[a-zA-Z]+)\s+(?=\{)", r"\1"),
        (rf"(\\(?:frac|binom){_BRACED})\s+(?=\{{)", r"\1"),
        (r"(?<!\\)\\[,;: >]|~", " "),
        (r"(?<!\\)\\$|\\\\\s*$", ""),
        (r"\\\\\[-?[\d.]+ ?[a-z]+\]", r"\\\\"),
        # Money, mathematics in words, per cent; as pandoc tells mathematics from money
        (r"(?<!\\)\$([^$\s](?:[^$]*[^$\s\\])?)\$(?!\d)", r"\1"),
        (r"\\([$%#&])", r"\1"),
        (r"per cent\b", "percent"),
        # Fonts, names of functions
        (r"\\text (?=[\d.])|\\text(?=\{\\(?:frac|pi|sqrt)[^a-z])", ""),
        (r"\\mathbb ?([A-Z])(?![a-zA-Z])", r"\\mathbb{\1}"),
        (r"\{\\text ([a-zA-Z]+)\}", r"\\text{\1}"),
        (r"\\text (?=[a-zA-Z])([a-zA-Z]+)", r"\\text{\1}"),
        (rf"\\text\s*\{{\s*({_FUNCTIONS})\s*\}}|(?<![a-zA-Z\\])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1\2 "),
        (r"\\text\{(gcd|lcm|max|min|det)\}(?=\s*(?:\(|\\\{))", r"\\\1"),
        (r"(?<![\d}\s/])\\text\s*\{\s*([a-zA-Z])\s*\}(?!_)|\\text\{([eikxyznt])\}", r"\1\2"),
        (r"\\text\{\s*([,:;])\s*\}", r"\1 "),
        (r"\\text\{([0-9A-Z]+)\}(?=_)", r"\1"),
        # ASCII and calculators' spelling
        (r"\*\*", "^"),
        (r"<=", r"\\leq "),
        (r">=", r"\\geq "),
        (r"!=", r"\\neq "),
        (r"\.\.\.+", r"\\ldots "),
        (
            r"(?<![a-zA-Z\\{])(?<![a-z] )infinity(?![a-zA-Z])|(?<![a-zA-Z\\])(?:sqrt|pi|infty)(?![a-zA-Z])",
            r"\\\g<0>",
        ),
        (r"\\infinity|(?<![a-zA-Z\\{])inf(?![a-zA-Z])", r"\\infty"),
        (r"(?<![\w/.])(\d+)/(\d+) (?=[a-zA-Z(\\])(?!\\text)", r"\\frac{\1}{\2} "),
        # Arguments and where they end
        (r"\{([^{}]*)\\over(?![a-z])([^{}]*)\}|^([^{}]*)\\over(?![a-z])([^{}]*)$", r"\\frac{\1\3}{\2\4}"),
        (r"\{([^{}]*)\\choose([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (rf"\\(frac|binom)\s*{_BARE}", r"\\\1{\2}"),
        (rf"(\\(?:frac|binom)\s*{_BRACED})\s*{_BARE}", r"\1{\2}"),
        (rf"\\sqrt\s*(\[[^\]]*\])?\s*([0-9a-zA-Z]|\\frac\s*{_BRACED}\s*{_BRACED})", r"\\sqrt\1{\2}"),
        (rf"\\({_FUNCTIONS})((?:_\w|_\{{\w+\}}|\^\d)?)\{{([^{{}}]*)\}}", r"\\\1\2(\3)"),
        (rf"\\({_FUNCTIONS}) ?([a-zA-Z]|\\[a-z]+)(?= ?(?:\\cdot|\*))", r"\\\1(\2)"),
        (r"\\log_(?:e|\{e\})", r"\\ln "),
        (r"\\(overline|bar|dot)\s*(\d)", r"\\\1{\2}"),
        (r"\^\s*(?:\{\s*(?:\\circ|°|o|\\text\{o\})\s*\}|\\circ(?![a-zA-Z])|°|\\text\{o\})", "°"),
        (r"(\d) ?\{\}°", r"\1°"),
        (r"(?<=\d)(?:\^\{?\\text\{ ?(?:st|nd|rd|th) ?\}\}?|\\text\{ ?(?:st|nd|rd|th) ?\}|(?:st|nd|rd|th)\b)", ""),
        (r"\^ ?\(([^()]*)\)", r"^{\1}"),
        (r"\^ ?(-(?:\d+|[a-zA-Z])|\d\d+)", r"^{\1}"),
        (r"_ ?(\d\d+)", r"_{\1}"),
        (r"(?<![a-zA-Z])\(([0-9A-Z]+)\)(?= ?_)", r"\1"),
        (r"\^\s*\{\s*(\w)\s*\}(?!\d)", r"^\1"),
        (r"_\s*\{\s*(\w)\s*\}(?!\w)", r"_\1"),
        (rf"(?:(?<=\d)(?!\{{\d)|(?<![\w}}\]^\\]))\{{({_SIMPLE})\}}", r"\1"),  # a group that is nobody's argument
        (r"\s+", " "),
        (r"(?<![\w,}]) | (?![\w\\-])", ""),
    )
)
_FULL_STOP = re.compile(r"(?<!\.)(?<!\\right)\.$|(?<!\.)\. *(?=\$+$)|[;`]+$")
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ('"', '"'))


def normalise(latex: str) -> str:
    r"""Drop what changes the print and not the meaning: delimiters, spacing, sizes, fonts, a final full stop.

    Example: ``normalise(r"$\left(\dfrac12,\; 3\right)$.") == r"(\frac{1}{2}, 3)"``. Spaces stay where they can have a
    meaning: ``1 1/2`` is not ``11/2``, and ``1, 234`` is not a thousand and some.
    """
    latex = _FULL_STOP.sub("", latex.strip())
    if latex.isdecimal() and latex.isascii():
        return latex
    for opening, closing in _DELIMITERS:
        if latex.startswith(opening) and latex.endswith(closing) and len(latex) > len(opening + closing):
            inner = latex[len(opening) : -len(closing)]
            if opening not in inner.replace(r"\$", ""):
                latex = inner.strip()
    if not latex.isascii():
        latex = _to_ascii(latex)
    if "\\" in latex:
        latex = _GLUED.sub(_unglued, latex)
        latex = _COMMAND.sub(lambda command: _COMMANDS.get(command[1], command[0]), latex)
    for pattern, replacement in _REWRITES:
        latex = pattern.sub(replacement, latex)
    return _FULL_STOP.sub("", latex.strip())


def _unglued(glued: re.Match[str]) -> str:
    return "° " if glued["degrees"] else ", " if glued["gap"] else " "


def _to_ascii(latex: str) -> str:
    """Digits, fractions and signs of Unicode as LaTeX writes them; what has no such spelling stays and is not read."""
    latex = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", latex)
    latex = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", latex)
    for sign, degree in _ROOTS:
        latex = re.sub(rf"{sign}\s*(\d+)", rf"\\sqrt{degree}{{\1}}", latex).replace(sign, rf"\sqrt{degree} ")
    return "".join(map(_plain, latex.translate(_CHARACTERS)))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>")):  # 2ⁿ is not 2n
        return character
    folded = unicodedata.normalize("NFKC", character)
    top, slash, bottom = folded.partition("⁄")
    if slash:
        return rf"\frac{{{top}}}{{{bottom}}}"
    return folded if folded.isascii() and folded.isalnum() else character
