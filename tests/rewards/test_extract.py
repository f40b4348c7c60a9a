import json
import random
from pathlib import Path

import pytest

from rewards import Extraction, extract

SHARED = Path(__file__).parents[3] / "shared"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{33}.", "33"),
        (r"\boxed {33}", "33"),
        (r"\fbox{7}", "7"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{9} then \boxed{42}", "42"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{-\boxed{42}}", r"-\boxed{42}"),
        (r"$-\boxed{42}$", "-42"),
        (r"$10-\boxed{3}$", "3"),
        (r"\boxed{42}\%", r"42\%"),
        (r"$\neq\boxed{42}$", r"\neq42"),
        (r"<THINK>\boxed{1}</THINK> \boxed{2}", "2"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        (r"a stray { and \boxed{3}", "3"),
        (r"a stray } and \boxed{3}", "3"),
        (r"\boxed{42} and \boxed{43", "42"),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"\boxed{1}</think> \boxed{2}", "2"),
        (r"\boxed{}", ""),
        (r"\boxed{ }", ""),
        (r"Hence 42. \boxed{41} \boxed{}", ""),
    ],
)
def test_takes_the_last_balanced_box(text: str, answer: str) -> None:
    name = "fbox" if "fbox" in text else "boxed"
    for mode in ("strict", "lenient"):
        assert extract(text, mode) == Extraction(answer=answer, rule=rf"last \{name}{{}}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{2} and \boxed{3}", "2, 3"),
        (r"\boxed{1} and \boxed{2} and \boxed{3}", "1, 2, 3"),
        (r"$\boxed{2}$, $\boxed{3}$ or \fbox{5}", "2, 3, 5"),
        (r"\boxed{-2} \quad \text{and} \quad \boxed{1}.", "-2, 1"),
        (r"\boxed{(3, 3)} \text{ for part (a) and } \boxed{(1, 1)}", "(3, 3), (1, 1)"),
        (r"\boxed{41} or, if you prefer, in another form or \boxed{42}", "41, 42"),
        (r"\boxed{1} so far. \boxed{2};\ \boxed{3}", "2, 3"),
    ],
)
def test_boxes_that_belong_together_are_one_list(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer=answer, rule=r"joined \boxed{}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{9} \boxed{42}", "42"),
        ("\\boxed{9}\n\\boxed{42}", "42"),
        (r"\boxed{10} and then \boxed{42}", "42"),
        (r"\boxed{5}, the handy result is \boxed{42}", "42"),
        (r"\boxed{10}, which is more than sixty characters long and therefore no list, and \boxed{42}", "42"),
        (r"\boxed{42} and \boxed{42}", "42"),
        (r"\boxed{} and \boxed{42}", "42"),
        (r"\boxed{42} and \boxed{}", ""),
    ],
)
def test_other_boxes_are_not_joined(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer=answer, rule=r"last \boxed{}")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no box"),
        ("The answer is 33.", "no box"),
        ("#### 33", "no box"),
        ("$33$", "no box"),
        (r"\boxed 33", "no box"),
        (r"\boxedness{33}", "no box"),
        (r"\\boxed{33}", "no box"),
        (r"\boxed{33", "a box that is not closed"),
        (r"\boxed{blah \foo{ 33 ##@@}.", "a box that is not closed"),
        (r"<think>\boxed{33}</think> The answer is 33.", "no box"),
        (r"<think>\boxed{33}", "unclosed <think>"),
        (r"<think>no</think> so <think>\boxed{33}", "unclosed <think>"),
    ],
)
def test_strictly_nothing_else_is_an_answer(text: str, rule: str) -> None:
    assert extract(text) == Extraction(answer=None, rule=rule)


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        ("so <answer> $12.5$ </answer> it is", "12.5", "<answer>"),
        ("<answer>1</answer> no: <answer>x = 2</answer>", "x = 2", "<answer>"),
        ("48/2 = 24\n#### 1,072", "1,072", "after ####"),
        ("The total is #### 99 dollars.", "99 dollars", "after ####"),
        ("#### Step 2: the area\n7 * 6 = 42.\n\nThe answer is 42.", "42", "stated answer"),
        ("The answer is $$42$$", "42", "stated answer"),
        ("So the correct answer is **Evelyn**.", "Evelyn", "stated answer"),
        (r"Therefore, the answer is \(x^2 + 1\), as required.", "x^2 + 1", "stated answer"),
        ("the answer to the question is: 3.5. Good luck with 7!", "3.5", "stated answer"),
        ("Answer: 41 was a guess.\nAnswer: 42", "42", "stated answer"),
        ("**Final Answer**\n\n$7.50", "$7.50", "stated answer"),
        ("Final Answer: The final answer is 12,000,023. I hope it is correct.", "12,000,023", "Final Answer:"),
        ("Final Answer: The volume of $ABC$ is 120. I hope it is correct.", "120", "stated answer"),
        ("The answer is $2$ or $3$.", "2 or 3", "stated answer"),
        ("The answer is $90$ degrees, because $x$ is right.", "90 degrees", "stated answer"),
        ("The answer is 42. Note: the answer is correct.", "42", "stated answer"),
        ("It takes 2 hours.\nA: 72", "72", "line A:"),
        ("A: Tom sold 48 + 24 = 72 clips", "72 clips", "line A:"),
        ("28 percent", "28 percent", "whole text"),
        ("$10^3 = 1000$", "1000", "whole text"),
        ("$y = 2x + 1$", "y = 2x + 1", "whole text"),
        ("64 + 67 = **131**", "131", "whole text"),
        ("W(x)=1 or W(x)=-1", "W(x)=1 or W(x)=-1", "whole text"),
        (r"We find that $n$ satisfies $x \neq 3$ for all $n$.", r"x \neq 3", "last formula"),
        ("She pays $10 for one and $20 for two, so the total is $30.", "$30", "last number"),
        ("so the number is not 10 but 1,000.99m² now", "1,000.99", "last number"),
        ("That makes it the 3rd in AZYUK2A after -3/4 of it.", "-3/4", "last number"),
    ],
)
def test_leniently_the_first_rule_that_fires_decides(text: str, answer: str, rule: str) -> None:
    assert extract(text, "lenient") == Extraction(answer=answer, rule=rule)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**C**", "C"),
        ("The correct answer is (A) 42", "A"),
        ("Answer: B", "B"),
        ("B is correct. Or maybe C. Actually let's finalize B", "B"),
        ("It's not A because it makes no sense, therefore I think it's B", "B"),
        ("D. it can't be A or B", "D"),
        ("A. 3\nB. 4\nC. 5\nI choose C, a prime.", "C"),
        ("Between (A) and (B), we take (B)", "B"),
        ("A dog is what I see", None),
    ],
)
def test_the_letter_of_an_option(text: str, answer: str | None) -> None:
    assert extract(text, "lenient", choice=True).answer == answer


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (r"Hence 42. \boxed{}", r"last \boxed{}"),
        (r"The answer is 42: \boxed{42", "a box that is not closed"),
        ("<think>The answer is 42.", "unclosed <think>"),
        ("<think>The answer is 42.</think>", "nothing like an answer"),
        ("That is how it must be, and nobody can say why.", "nothing like an answer"),
    ],
)
def test_leniently_there_may_be_no_answer_too(text: str, rule: str) -> None:
    found = extract(text, "lenient")
    assert (found.answer or None, found.rule) == (None, rule)


def test_a_box_before_the_window_is_not_seen() -> None:
    assert extract(r"\boxed{33}" + "x" * 65_536).answer is None
    assert extract("x" * 100_000 + r"\boxed{33}" + "x" * 65_000).answer == "33"


PIECES = [
    *(r"\boxed{", r"\boxed", r"\boxed ", "{", "}", "\\", "<think>", "</think>", r"\boxed{1}", " and ", "####", "#### "),
    *("the answer is ", "answer: ", "answers to of ", "final answer\n", "A:\n", "$", "$$", "$1 $", r"\(", r"\[", "**"),
    *("1", "1,234,", "1/", "(A)", "A.", "option ", "<answer>", "</answer>", "x=", "is ", ". ", r"\text{", "\n", " "),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", PIECES)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    for text in (piece * 100_000, (piece + " " * 500) * 2_000, (piece + "\n") * 50_000):
        extract(text)
        extract(text, "lenient")
        extract(text, "lenient", choice=True)


def test_no_text_makes_it_raise() -> None:
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices([*PIECES, "a", "5", "-", "½", "\x00", "\ud800"], k=rng.randint(0, 30)))
        for choice in (False, True):
            assert extract(text, "lenient", choice=choice).rule


@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled files lie outside the repository")
def test_what_real_models_answered_without_a_box_is_found() -> None:
    """GSM8K solutions that end in ``A: 72``: right ones end in the gold's number, wrong ones in another."""
    lines = (SHARED / "verifier/generations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "boxed" not in row["output"] and "\nA: " in row["output"]]
    answers = [(extract(row["output"], "lenient").answer or "").strip("$%").replace(",", "") for row in rows]
    assert len(rows) > 250
    assert [row["id"] for row, own in zip(rows, answers, strict=True) if _same(own, row["gold"]) != row["label"]] == []


def _same(answer: str, gold: str) -> bool:
    try:
        return float(answer) == float(gold.replace(",", ""))
    except ValueError:
        return False
