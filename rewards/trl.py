r"""Reward functions in the signature of TRL's trainers (`GRPOTrainer`, `RLOOTrainer`), checked with TRL 1.16.

    from functools import partial
    from rewards.terms import boxed_format
    from rewards.trl import accuracy_reward

    GRPOTrainer(..., reward_funcs=partial(accuracy_reward, terms=[(0.1, boxed_format)]))

None is what TRL drops a completion for, if *every* function of `reward_funcs` returns None for it: beside a function
that returns a number, TRL counts None as 0.0, and an error of the verifier becomes a wrong answer. So name terms here
instead of listing `format_reward` beside `accuracy_reward`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.terms import boxed_format, weighted
from rewards.verdict import Mark, Verdict
from rewards.verify import verify

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or chat messages of which the last is the answer."""
Term = tuple[float, Callable[[str], float]]
"""A weight and a function of the completion's text, see `rewards.terms`."""


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str] | None = None,
    answer: Sequence[str] | None = None,
    *,
    check: Callable[[str, str], Verdict] = verify,
    terms: Sequence[Term] = (),
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **_: Any,
) -> list[float | None]:
    r"""1.0 for right and 0.0 for wrong, with `terms` added; None where the verifier cannot say.

    Safe in any thread. What was marked and why is a column of the completions table, the share of errors a metric.

    Args:
        solution: the golds, TRL's column; worked solutions that end in a box or ``#### gold`` will do.
        answer: the golds of data sets that have this column; where there are both, `solution` is not looked at.
        check: `rewards.verify`, or `rewards.verify_leniently`; for `functools.partial`, as are the terms.

    Raises:
        TypeError: the data set has neither column.
    """
    golds = answer if answer is not None else solution
    if golds is None:
        raise TypeError("the data set has neither a column solution nor answer: rename the one with the golds")
    texts = [_text(completion) for completion in completions]
    verdicts = [check(text, gold) for text, gold in zip(texts, golds, strict=True)]
    if log_extra is not None:
        log_extra("verdict", [f"{verdict.mark}: {verdict.reason}" for verdict in verdicts])
        log_extra("extracted", [verdict.answer or "" for verdict in verdicts])
    if log_metric is not None:
        log_metric("verifier_errors", sum(verdict.mark is Mark.ERROR for verdict in verdicts) / len(verdicts))
    return [
        weighted(verdict, *((weight, term(text)) for weight, term in terms)).reward
        for text, verdict in zip(texts, verdicts, strict=True)
    ]


def format_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """`rewards.terms.boxed_format` of each completion."""
    return [boxed_format(_text(completion)) for completion in completions]


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())  # the parts of a multimodal message
