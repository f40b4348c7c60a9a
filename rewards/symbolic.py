"""Comparison by math-verify (sympy). Importing this module costs a second; `rewards.verify` does it at first need.

Each side is parsed as the content of one box and nothing else, so that math-verify never goes looking for other
numbers. Sympy objects stay in this module: printing, logging or pickling a hostile one can hang.
"""

from functools import lru_cache
from typing import Any

import math_verify
from math_verify import LatexExtractionConfig
from math_verify.errors import TimeoutException

SECONDS = 5
"""What math-verify's own alarm grants a parse, and a comparison."""

_BOXED_FIRST = [LatexExtractionConfig(boxed_match_priority=0)]


class UnparsableError(Exception):
    """It has no reading that could equal anything."""


class SlowError(Exception):
    """It took longer than `SECONDS`, or more memory or stack than there is."""


def equal(answer: str, gold: str) -> bool:
    """Whether both mean the same, by math-verify; decimals are compared to six places.

    Args:
        answer: normalised LaTeX, within `rewards.limits`.
        gold: likewise. Its parse is cached: a group has one gold and many answers.

    Raises:
        UnparsableError: one of them has no reading.
        SlowError: reading or comparing them takes too long.
        ValueError: called outside a main thread, where alarms do not work.
    """
    return _compare(_parse(answer), parse_gold(gold))


@lru_cache(maxsize=1024)
def parse_gold(gold: str) -> Any:
    """Read a gold, once, and see that it equals itself (1/0 does not). Raises as `equal`; failures are not cached."""
    expression = _parse(gold)
    if not _compare(expression, expression):
        raise UnparsableError
    return expression


def _parse(latex: str) -> Any:
    try:
        found = math_verify.parse(
            rf"\boxed{{{latex}}}",
            _BOXED_FIRST,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=SECONDS,
            raise_on_error=True,
        )
    except (TimeoutException, MemoryError, RecursionError) as error:  # the first is a BaseException
        raise SlowError from error
    if not found:
        raise UnparsableError
    return found[0]


def _compare(answer: Any, gold: Any) -> bool:
    try:
        return bool(math_verify.verify(gold, answer, timeout_seconds=SECONDS, raise_on_error=True))
    except (TimeoutException, MemoryError, RecursionError) as error:
        raise SlowError from error
    except Exception:  # sympy has no order or difference for these two, e.g. 1/0 against 3: they are not equal
        return False
