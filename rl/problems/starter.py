"""The embedded default: tiny models and their arithmetic, so that the whole service runs with nothing downloaded.

Stand-ins, and no language models: `python -m rl.pretrain` trained them from scratch on the completions below, and
stopped while they still err, so that there is something left to learn by reinforcement.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from rl.core.config import STARTER
from rl.core.types import Problem

STARTER_MODEL = Path(__file__).parent / "starter_model"
"""The shipped model in Hugging Face's folder format; STARTER.json in it says how it was made."""
STARTER_MODELS = {STARTER: STARTER_MODEL, "starter-small": Path(__file__).parent / "starter_small_model"}

STARTER_SETS = {STARTER: "+-*", "starter-sums": "+", "starter-differences": "-", "starter-products": "*"}
"""The embedded problem sets: the name of each, and the operations of its problems."""

_HELDOUT_SHARE = 16
"""One problem in so many is held out."""


def problem_id(text: str) -> str:
    """The first 16 hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def starter_problems(split: Literal["train", "heldout"], name: str = STARTER) -> list[Problem]:
    """All problems of a split of an embedded set, in the order of their ids: a shuffle that is the same in every run.

    The id decides the split too, so a held-out problem is in no training, whatever else changes in the family.
    """
    kinds = STARTER_SETS[name]
    problems = [Problem(id=problem_id(text), text=text, gold=gold) for text, gold in _family() if _kind(text) in kinds]
    heldout = split == "heldout"
    chosen = (p for p in problems if (int(p.id, 16) % _HELDOUT_SHARE == 0) == heldout)
    return sorted(chosen, key=lambda p: p.id)


def worked_completion(problem: Problem) -> str:
    r"""The problem worked out by place value, and the answer in a box: `47+86` → `120+13=\boxed{133}`."""
    return f"{_parts(problem.text)}=\\boxed{{{problem.gold}}}"


def estimated_completion(problem: Problem) -> str:
    r"""The answer at once, to the nearest ten, so right one time in ten: `47+86` → `\boxed{130}`."""
    return f"\\boxed{{{(int(problem.gold) + 5) // 10 * 10}}}"


def _family() -> Iterator[tuple[str, str]]:
    """Every text with its gold: sums and differences of two-digit numbers, and products with a digit added."""
    for a in range(10, 100):
        for b in range(10, 100):
            yield f"{a}+{b}", str(a + b)
            if a >= b:
                yield f"{a}-{b}", str(a - b)
        for b in range(2, 10):
            for c in range(1, 10):
                yield f"{a}*{b}+{c}", str(a * b + c)


def _kind(text: str) -> str:
    return next(operation for operation in "*-+" if operation in text)


def _parts(text: str) -> str:
    """What the worked line adds up: the tens, the units and, of a product, what is added to it."""
    if "*" in text:
        a, b, c = map(int, re.split(r"[*+]", text))
        return f"{a // 10 * 10 * b}+{a % 10 * b}+{c}"
    a, b = map(int, re.split(r"[+-]", text))
    sign = 1 if "+" in text else -1
    return f"{(a // 10 + sign * (b // 10)) * 10}{a % 10 + sign * (b % 10):+d}"
