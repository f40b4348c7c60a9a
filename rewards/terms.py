r"""Terms of a reward besides correctness, for those who write their own: each a plain function, combined by `weighted`.

Example, a reward for ``--reward my_module:my_reward``::

    def my_reward(completion: str, gold: str) -> Verdict:
        return weighted(verify(completion, gold), (0.1, boxed_format(completion)))

A term that does not depend on the answer pays wrong answers as well: keep its weight small, or it is what is learned.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from rewards.extract import after_thinking, boxes
from rewards.verdict import Verdict


def weighted(verdict: Verdict, *terms: tuple[float, float], correctness: float = 1.0) -> Verdict:
    """The verdict that pays ``correctness × its reward + Σ weight × value``; an error stays an error and pays nothing.

    The mark is not touched: pass@k counts right answers, whatever they are paid.

    Args:
        terms: pairs of a weight and the value of a term.
        correctness: the weight of the verdict's own reward.
    """
    if verdict.reward is None:
        return verdict
    return replace(verdict, paid=correctness * verdict.reward + sum(weight * value for weight, value in terms))


def boxed_format(completion_text: str) -> float:
    r"""1.0 for exactly one ``\boxed{…}`` that is not empty, after thinking that was closed where there is any."""
    spoken, is_closed = after_thinking(completion_text)
    found, is_open = boxes(spoken)
    return float(is_closed and not is_open and len(found) == 1 and found[0].content != "")


def think_format(completion_text: str, *, opened: bool = False) -> float:
    """1.0 for one ``<think>…</think>`` in front and an answer after it, neither of them empty; else 0.0.

    Args:
        opened: the prompt ends with ``<think>``, as in the chat templates of DeepSeek-R1, so the completion has none.
    """
    text = completion_text.lstrip()
    if not opened and not text.startswith("<think>"):
        return 0.0
    thought, closing, answer = text.removeprefix("" if opened else "<think>").partition("</think>")
    is_whole = closing and thought.strip() and answer.strip()
    return float(bool(is_whole) and not any(tag in thought + answer for tag in ("<think>", "</think>")))


def overlong_penalty(length: int, *, limit: int, buffer: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), from 0 to -1, so that a cut is no surprise.

    Args:
        length: tokens of the completion.
        limit: tokens a completion may have; beyond it is -1.
        buffer: tokens before the limit over which it falls from 0 to -1.
    """
    if length > limit:
        return -1.0
    return min(0.0, (limit - buffer - length) / buffer) if buffer else 0.0


def repetition_penalty(tokens: Sequence[Hashable], *, n: int = 20) -> float:
    """Minus the share of n-grams that an earlier one repeats, from 0 to -1 (Yeo et al. 2025, arXiv 2502.03373, C.2).

    Args:
        tokens: of the completion, as ids or words.
        n: tokens in an n-gram.
    """
    total = len(tokens) - n + 1
    if total < 1:
        return 0.0
    return len({tuple(tokens[i : i + n]) for i in range(total)}) / total - 1.0
