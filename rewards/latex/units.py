"""Units of measure, money and scale: which of them are the same, and how many of one are another."""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.latex.numbers import NUMBER_WORDS

# Names without the s of the plural.
_NAMES: dict[str, tuple[str, str | int]] = {
    "mm millimeter millimetre": ("m", "1/1000"),
    "cm centimeter centimetre": ("m", "1/100"),
    "dm decimeter decimetre": ("m", "1/10"),
    "m meter metre": ("m", 1),
    "km kilometer kilometre": ("m", 1000),
    "in inch inche": ("m", "0.0254"),
    "ft foot feet": ("m", "0.3048"),
    "yd yard": ("m", "0.9144"),
    "mi mile": ("m", "1609.344"),
    "mg milligram": ("g", "1/1000"),
    "g gram gm": ("g", 1),
    "kg kilogram kilo": ("g", 1000),
    "oz ounce": ("oz", 1),
    "lb pound": ("oz", 16),
    "ton tonne": ("ton", 1),
    "ms millisecond": ("s", "1/1000"),
    "s sec second": ("s", 1),
    "min minute": ("s", 60),
    "h hr hour": ("s", 3600),
    "day": ("s", 86_400),
    "week wk": ("s", 604_800),
    "month": ("month", 1),
    "year yr": ("month", 12),
    "ml milliliter millilitre": ("l", "1/1000"),
    "l liter litre": ("l", 1),
    "cup": ("cup", 1),
    "pint": ("cup", 2),
    "quart": ("cup", 4),
    "gallon gal": ("cup", 16),
    "$ dollar usd buck": ("$", 1),
    "¢ cent penny pennie": ("$", "1/100"),
    "€ euro eur": ("€", 1),
    "£ gbp": ("£", 1),
    "₹ rs rupee": ("₹", 1),
    "¥ yen yuan": ("¥", 1),
    "° degree deg": ("°", 1),
    "°c celsiu": ("°c", 1),
    "°f fahrenheit": ("°f", 1),
    "rad radian": ("rad", 1),
    "% percent percentage pct": ("%", 1),
    "hundred": ("", 100),
    "lakh": ("", 10**5),
    "crore": ("", 10**7),
    "score": ("", 20),
    "thousand": ("", 1000),
    "million": ("", 10**6),
    "billion": ("", 10**9),
    "trillion": ("", 10**12),
    "dozen": ("", 12),
    "unit": ("unit", 1),
}
_TABLE = {name: (of, Fraction(factor)) for names, (of, factor) in _NAMES.items() for name in names.split()}
_ABBREVIATED = {"mph": "mi/h", "kph": "km/h", "km/hr": "km/h", "sq": "square", "cu": "cubic", "p.m": "pm", "a.m": "am"}
_NO_UNITS = frozenset(NUMBER_WORDS) | frozenset(
    # Whoever writes one of these after a number means another number, or does not mean it.
    "or and not maybe no none nope never if but is are either neither nor except than approximately about to i wrong "
    "incorrect false invalid excluded possibly perhaps probably cannot negative minus plus less more below above under "
    "over half halves third quarter fourth fifth sixth seventh eighth ninth tenth twelfth hundredth thousandth squares "
    "cubes root reciprocal inverse factorial double triple twice base googol gross quadrillion quintillion nonillion "
    "zillion tens mil ppm mille mega kilo power log divided modulo choose without instead rejected impossible octal "
    "hex binary unequal different fewer unless unsure infinity".split()
)
_WORD = re.compile(r"°[cf]\b|[a-zA-Z]+(?:\.[a-zA-Z]+)*|[$°%€£¢₹¥]|\^-?\d|\^\{-?\d\}|[/*-]")
_MAX_WORDS = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of base units.

    Example: ``unit("km/h") == Unit((("m", 1), ("s", -1)), Fraction(5, 18), Fraction(1), "km/h")``
    """

    powers: tuple[tuple[str, int], ...]
    """Sorted; a word that is in no table is a base unit of its own."""
    factor: Fraction
    """How many base units it is."""
    scale: Fraction
    """What its words of scale multiply by: ``million dollars`` by a million."""
    text: str


class _Product:
    """A unit in the making."""

    def __init__(self) -> None:
        self.powers: dict[str, int] = {}
        self.factor = self.scale = Fraction(1)

    def multiply(self, name: str, power: int) -> None:
        of, amount = _TABLE.get(name, (name, Fraction(1)))
        if of:
            self.powers[of] = self.powers.get(of, 0) + power
            self.factor *= amount**power
        else:
            self.scale *= amount


def unit(text: str) -> Unit | None:
    r"""Read what follows a number, its ``\text{…}`` already taken off; None if that names no unit."""
    text = text.strip().strip(".").lower()
    text = _ABBREVIATED.get(text, text).replace("° ", "°")
    product, last, last_sign = _Product(), "", 1
    power, sign = 1, 1
    if (words := _words(text)) is None:
        return None
    for word in words:
        if word in ("per", "/", "a", "an", "each"):
            sign = -1
        elif word in ("square", "cubic"):
            power = 2 if word == "square" else 3
        elif word in ("squared", "cubed") or word.startswith("^"):
            if not last:
                return None
            raised = {"squared": 2, "cubed": 3}.get(word) or int(word.strip("^{}"))
            product.multiply(last, last_sign * (raised - 1))
        elif word not in ("*", "-", "of", "the"):
            last, last_sign = word if word in _TABLE else word.removesuffix("s"), sign
            if last not in _TABLE and len(last) == 1:
                return None  # a variable
            product.multiply(last, sign * power)
            power, sign = 1, sign if "/" in words else 1
    powers = tuple(sorted((name, power) for name, power in product.powers.items() if power))
    return Unit(powers, product.factor, product.scale, text)


def _words(text: str) -> list[str] | None:
    words = [_ABBREVIATED.get(word, word) for word in _WORD.findall(text)]
    if not words or len(words) > _MAX_WORDS or _WORD.sub("", text).strip(" .,()"):
        return None
    if words[0] in ("%", "percent"):  # 25% increase
        return words[:1]
    return None if any(word in _NO_UNITS or word.removesuffix("s") in _NO_UNITS for word in words) else words


def is_known(word: str) -> bool:
    """Whether a bare word next to a number can be nothing but a unit, however short."""
    word = word.lower()
    return word in _ABBREVIATED or (len(word) > 1 and (word in _TABLE or word.removesuffix("s") in _TABLE))
