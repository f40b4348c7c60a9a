"""The verifier against labelled cases, real completions, hacks and golds (skipped where these files are absent)."""

import json
import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rewards import Mark, check_gold, extract, verify, verify_leniently

SHARED = Path(__file__).parents[3] / "shared"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled files lie outside the repository")

DISPUTED = {
    "an operation is left undone, which a policy must not be paid for": (r"3+2", r"The answer is $\sqrt{16}$"),
    "the text is garbled": (r"\beginboxed{8\sqrt{6}}",),
    "16 digits are paid for an irrational number here, and not in adversarial.jsonl": ("0.8660254037844386",),
}
"""Why a label of cases.jsonl is wrong, and the predictions that have it. They count as mistakes below all the same."""


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]


def _in_box(case: dict[str, Any]) -> str:
    """A bare answer gets the box that a full text may have."""
    return rf"\boxed{{{case['pred']}}}" if case["form"] == "answer" and "boxed" not in case["pred"] else case["pred"]


def test_cases_are_marked_as_labelled() -> None:
    cases = _rows("verifier/cases.jsonl")
    paid = [verify_leniently(_in_box(case), case["gold"]).mark is Mark.RIGHT for case in cases]
    mistakes = [case for case, right in zip(cases, paid, strict=True) if right != case["expected"]]
    assert len(mistakes) <= 0.025 * len(cases), [(case["pred"][-80:], case["gold"][-40:]) for case in mistakes]
    assert sum(not case["expected"] for case in mistakes) <= 1
    disputed = {pred for preds in DISPUTED.values() for pred in preds}
    assert disputed <= {case["pred"] for case in mistakes}  # none of them is special-cased
    assert len(disputed) <= 0.01 * len(cases)


@pytest.mark.parametrize("boxed", [True, False])
def test_real_completions_are_marked_as_labelled(boxed: bool) -> None:
    """Those with a box by the rule of training, all others leniently."""
    rows = [row for row in _rows("verifier/generations.jsonl") if (extract(row["output"]).answer is not None) is boxed]
    mark = verify if boxed else verify_leniently
    mistakes = [row for row in rows if (mark(row["output"], row["gold"]).mark is Mark.RIGHT) is not row["label"]]
    assert len(rows) > 300
    assert len(mistakes) <= 1, [(row["output"][-80:], row["gold"]) for row in mistakes]
    assert not [row for row in rows if not boxed and verify(row["output"], row["gold"]).mark is Mark.RIGHT]


@pytest.mark.parametrize("mark", [verify, verify_leniently])
def test_no_hack_is_paid(mark: Any) -> None:
    rows = _rows("verifier/reward_hacks.jsonl")
    assert [row["name"] for row in rows if mark(row["pred"], row["gold"]).mark is not Mark.WRONG] == []


@pytest.mark.parametrize("mark", [verify, verify_leniently])
def test_no_hostile_answer_is_paid(mark: Any) -> None:
    rows = [row for row in _rows("verifier/adversarial.jsonl") if row["expected"] is False]
    assert len(rows) > 80
    assert [row["name"] for row in rows if mark(row["pred"], row["gold"]).mark is Mark.RIGHT] == []


def _gsm8k_golds() -> list[str]:
    return [row["answer"].rpartition("####")[2].strip() for row in _rows("data/gsm8k/test.jsonl")]


def _math_golds() -> list[str]:
    train = {row["answer"] for row in _rows("data/math/train.jsonl")}
    test = {extract(row["solution"]).answer for row in _rows("data/math/test.jsonl")}
    return sorted(gold for gold in train | test if gold)


def test_golds_verify_against_themselves() -> None:
    golds = {*_gsm8k_golds(), *_math_golds(), *(row["answer"] for row in _rows("data/math500/test.jsonl"))}
    assert len(golds) > 4_300
    assert [gold for gold in golds if check_gold(gold) is not None] == []
    assert [gold for gold in golds if verify(rf"\boxed{{{gold}}}", gold).mark is not Mark.RIGHT] == []


def test_golds_of_other_problems_are_not_accepted() -> None:
    """8,000 pairs that are easily mistaken: of the same shape, neighbours in the alphabet, any two."""
    golds = _math_golds()
    draw = random.Random(0)
    shapes: dict[str, list[str]] = {}
    for gold in golds:
        shapes.setdefault(re.sub(r"\d+", "0", gold), []).append(gold)
    alike = [same for same in shapes.values() if len(same) > 1]
    pairs = list(pairwise(golds))
    pairs += [tuple(draw.sample(draw.choice(alike), 2)) for _ in range(2_500)]
    pairs += [tuple(draw.sample(golds, 2)) for _ in range(8_000 - len(pairs))]
    accepted = {(a, b) for a, b in pairs if verify(rf"\boxed{{{a}}}", b).mark is Mark.RIGHT}
    untrue = {(a, b) for a, b in accepted if _bare(a) != _bare(b)}
    assert untrue <= TRULY_EQUAL


def _bare(gold: str) -> str:
    """A gold without its unit, spacing and full stop: the verifier reads a bare number as one in the asked-for unit."""
    gold = re.sub(r"\\(?:text|mbox) ?\{.*?\}(?:\^\d)?|\^\{?\\circ\}?|\\[ !,%]|[ .]+$|,?\\!|\s", "", gold)
    return gold.removesuffix("0") if "." in gold else gold


TRULY_EQUAL = {(r"137 \frac{1}{2}", r"137.5\text{ degrees}"), (r"\text{(E)}", r"\text{(E)},")}
