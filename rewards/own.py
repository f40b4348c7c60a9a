"""A reward of the user's own: what it returns becomes a verdict.

Example, in a file `my_module.py` of the directory where the run is started with ``--reward my_module:my_reward``::

    def my_reward(completion: str, gold: str) -> float:
        return 1.0 if completion.strip().endswith(gold) else 0.0

A number is the reward, right if it is 1 or more. A `Verdict` says all by itself. Anything else, None and not-a-number
included, is an error like an exception: the sample leaves its group, and is never a zero reward.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from rewards.extract import extract
from rewards.verdict import Mark, Verdict

Reward = Callable[[str, str], Any]
"""From a completion's text and the gold to a number or a `Verdict`."""


def load(name: str) -> Reward:
    """The function behind ``module:function``.

    Raises:
        TypeError: it cannot be called with a completion and a gold, or is async.
        Exception: whatever importing the module raises.
    """
    module, _, function = name.partition(":")
    reward: Reward = getattr(importlib.import_module(module), function)
    inspect.signature(reward).bind("completion", "gold")
    if inspect.iscoroutinefunction(reward):
        raise TypeError("async functions are not called; write a plain one")
    return reward


def verdict_of(result: Any, completion_text: str, gold: str) -> Verdict:
    """The verdict that a reward's result stands for. Its answer, the vote in maj@k, is that of `rewards.extract`."""
    if isinstance(result, Verdict) and (result.paid is None or math.isfinite(result.paid)):
        return result
    found = extract(completion_text)
    number = result.item() if hasattr(result, "item") else result  # numpy's and torch's scalars
    if not isinstance(number, Real) or not math.isfinite(number):
        reason = f"reward is no finite number but {type(result).__name__}"
        return Verdict(mark=Mark.ERROR, reason=reason, answer=found.answer, gold=gold, rule=found.rule)
    paid = float(number)
    mark = Mark.RIGHT if paid >= 1 else Mark.WRONG
    return Verdict(mark=mark, reason="by own reward", answer=found.answer, gold=gold, paid=paid, rule=found.rule)
