import pytest

from rewards import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{33}.", "33"),
        (r"\boxed {33}", "33"),
        (r"\fbox{7}", "7"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{9} then \boxed{42}", "42"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        (r"a stray { and \boxed{3}", "3"),
        (r"a stray } and \boxed{3}", "3"),
        (r"\boxed{42} and \boxed{43", "42"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"\boxed{1}</think> \boxed{2}", "2"),
        (r"\boxed{}", ""),
        (r"\boxed{ }", ""),
    ],
)
def test_takes_the_last_balanced_box(text: str, answer: str) -> None:
    assert extract(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 33.",
        "#### 33",
        "$33$",
        r"\boxed 33",
        r"\boxed{33",
        r"\boxedness{33}",
        r"\boxed{blah \foo{ 33 ##@@}.",
        r"<think>\boxed{33}</think> The answer is 33.",
        r"<think>\boxed{33}",
        r"<think>no</think> so <think>\boxed{33}",
    ],
)
def test_nothing_else_is_an_answer(text: str) -> None:
    assert extract(text).answer is None


def test_a_box_before_the_window_is_not_seen() -> None:
    assert extract(r"\boxed{33}" + "x" * 65_536).answer is None
    assert extract("x" * 100_000 + r"\boxed{33}" + "x" * 65_000).answer == "33"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece", [r"\boxed{", r"\boxed", r"\boxed ", "{", "}", "\\", "<think>", "</think>", r"\boxed{1}"]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    extract(piece * 200_000)
    extract((piece + " " * 500) * 2_000)
