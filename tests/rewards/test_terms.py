import math

import pytest

from rewards import Mark, Verdict
from rewards.terms import boxed_format, overlong_penalty, repetition_penalty, think_format, weighted

RIGHT = Verdict(mark=Mark.RIGHT, reason="same text", answer="7", gold="7")
WRONG = Verdict(mark=Mark.WRONG, reason="different numbers", answer="8", gold="7")
ERROR = Verdict(mark=Mark.ERROR, reason="timed out", answer="8", gold="7")


def test_weighted_adds_terms_to_what_the_verdict_pays() -> None:
    assert weighted(RIGHT, (0.5, 1.0), (2.0, -0.25)).reward == 1.0
    assert weighted(WRONG, (0.1, 1.0)).reward == 0.1
    assert weighted(RIGHT, (0.1, 1.0), correctness=0.9).reward == 1.0
    assert weighted(weighted(WRONG, (0.1, 1.0)), (0.1, 1.0)).reward == 0.2


def test_the_mark_is_that_of_the_answer_whatever_is_paid() -> None:
    verdict = weighted(WRONG, (5.0, 1.0))
    assert (verdict.mark, verdict.reason, verdict.answer) == (Mark.WRONG, "different numbers", "8")


def test_an_error_stays_an_error() -> None:
    assert weighted(ERROR, (1.0, 1.0)) is ERROR
    assert weighted(ERROR, (1.0, 1.0)).reward is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"So \boxed{33}.", 1.0),
        (r"<think>maybe \boxed{1}</think> \boxed{33}", 1.0),
        (r"\boxed{\boxed{33}}", 1.0),
        ("33", 0.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{33} \boxed{33}", 0.0),
        (r"\boxed{33} \boxed{34", 0.0),
        (r"<think>\boxed{33}</think>", 0.0),
        (r"\boxed{33} <think>wait", 0.0),
    ],
)
def test_boxed_format_is_exactly_one_box_after_the_thinking(text: str, value: float) -> None:
    assert boxed_format(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>2+2</think>4", 1.0),
        ("\n<think>\n2+2\n</think>\n4\n", 1.0),
        ("4", 0.0),
        ("2+2</think>4", 0.0),
        ("Well, <think>2+2</think>4", 0.0),
        ("<think></think>4", 0.0),
        ("<think>2+2</think> ", 0.0),
        ("<think>2+2", 0.0),
        ("<think>2<think>+2</think>4", 0.0),
        ("<think>2+2</think>4</think>5", 0.0),
    ],
)
def test_think_format_is_one_block_and_an_answer(text: str, value: float) -> None:
    assert think_format(text) == value


def test_think_format_after_a_prompt_that_opens_the_block() -> None:
    assert think_format("2+2</think>4", opened=True) == 1.0
    assert think_format("2+2", opened=True) == 0.0


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0)]
)
def test_overlong_penalty_falls_over_the_buffer(length: int, penalty: float) -> None:
    assert overlong_penalty(length, limit=100, buffer=20) == penalty


def test_without_a_buffer_only_what_is_over_the_limit_is_punished() -> None:
    assert [overlong_penalty(n, limit=100, buffer=0) for n in (99, 100, 101)] == [0.0, 0.0, -1.0]


def test_repetition_penalty_is_the_share_of_repeated_n_grams() -> None:
    assert repetition_penalty([1, 2, 3, 4], n=2) == 0.0
    assert repetition_penalty([5, 5, 5, 5, 5], n=2) == -0.75
    assert repetition_penalty(["to", "be", "or", "not", "to", "be"], n=2) == pytest.approx(-0.2)
    assert repetition_penalty([1], n=2) == 0.0


def test_penalties_agree_with_those_of_trl() -> None:
    trl = pytest.importorskip("trl.rewards", reason="the oracle: it is in the dev dependency group")
    overlong = trl.get_soft_overlong_punishment(max_completion_len=64, soft_punish_cache=16)
    repeated = trl.get_repetition_penalty_reward(ngram_size=3)
    completions = [[i * i % 7 for i in range(n)] for n in range(70)]
    assert [overlong_penalty(len(ids), limit=64, buffer=16) for ids in completions] == overlong(completions)
    for ours, theirs in zip((repetition_penalty(ids, n=3) for ids in completions), repeated(completions), strict=True):
        assert math.isclose(ours, theirs, abs_tol=1e-12)
