"""The verifier in the signature of verl's `custom_reward_function`::

    custom_reward_function.path=pkg://rewards.verl
    custom_reward_function.name=compute_score

(`reward.custom_reward_function` in newer releases; in place of pkg:// the path of this file.)
It keeps no state and needs no event loop, so it works in the threads and Ray workers that verl calls it from.

verl cannot drop a completion: every one needs a number, not-a-number spoils its whole group, and an exception ends the
run. So **an error of the verifier is paid 0.0 here, like a wrong answer**, and `error` is 1.0 beside it: watch it. A
gold that cannot be used does no harm, since its whole group gets the same; only a time-out or a lack of memory pays a
completion less than it may deserve. Check your golds with `rewards.check_gold` before the run.
"""

from typing import Any

from rewards.verdict import Mark
from rewards.verify import verify


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float | str]:
    """Mark one completion.

    Args:
        data_source: any; every data set is marked alike.
        solution_str: the completion's text.
        ground_truth: the gold.
        extra_info: is not looked at; nor is what some of verl's reward managers add.

    Returns:
        The same keys for every completion, as verl asks: ``score`` is the reward, ``acc`` what verl reports of a
        validation, ``pred`` what it takes a majority vote of, ``error`` whether the verifier could not say, ``reason``
        why it marked so.
    """
    verdict = verify(solution_str, str(ground_truth))
    return {
        "score": verdict.reward or 0.0,
        "acc": float(verdict.mark is Mark.RIGHT),
        "pred": verdict.answer or "",
        "error": float(verdict.mark is Mark.ERROR),
        "reason": verdict.reason,
    }
