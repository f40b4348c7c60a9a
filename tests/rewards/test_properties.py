"""What holds for any answer: the verifier is symmetric, blind to spacing, exact, and never raises."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import Mark, verify, verify_leniently

FORMULAS = [
    *["x+1", "1+x", "2x", r"\sqrt{2}", r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", r"\frac{\pi}{3}", "3+4i", "x^2-1"],
    *[
        "(x-1)(x+1)",
        "a b",
        "ba",
        r"2\sin x\cos x",
        r"\sin 2x",
        r"\log_2 x",
        "5",
        "0.5",
        r"\frac{1}{2}",
        r"50\%",
        "204_5",
    ],
]
FRAGMENTS = [
    *r"\{}()[]^_!=,.$%&+-*/|:;<>' 0123456789abcdefinxyABC",
    *"\n\t\x00\ud800٣½²√π°−≤",
    *[r"\frac", r"\sqrt", r"\boxed{", r"\text{", r"\left", r"\right", r"\pm", r"\cup", r"\in", r"\infty", r"\$", r"\%"],
    *[
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        r"\\",
        r"\overline{",
        "10^",
        "e5",
        " and ",
        " or ",
        "cm",
        "dollars",
        "million",
    ],
    *["1,000", "twenty", "x=", "(1,2)", r"\{1\}", "</think>", "<think>", "####", "answer is", "<answer>", "</answer>"],
]

formulas = st.sampled_from(FORMULAS)
numbers = st.one_of(st.integers(-(10**9), 10**9).map(Fraction), st.fractions(max_denominator=10**6))
fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)


def _mark(answer: str, gold: str) -> Mark:
    return verify(rf"\boxed{{{answer}}}", gold).mark


@settings(deadline=None, derandomize=True)
@given(formulas, formulas)
def test_equality_is_symmetric(one: str, other: str) -> None:
    assert _mark(one, other) == _mark(other, one)


@settings(deadline=None, derandomize=True)
@given(st.lists(formulas, min_size=2, max_size=4, unique=True), st.randoms(use_true_random=False))
def test_lists_and_sets_have_no_order_and_tuples_do(parts: list[str], draw: random.Random) -> None:
    shuffled = draw.sample(parts, len(parts))
    assert _mark(", ".join(shuffled), ", ".join(parts)) is Mark.RIGHT
    assert _mark(rf"\{{{', '.join(shuffled)}\}}", rf"\{{{', '.join(parts)}\}}") is Mark.RIGHT
    in_order = all(_mark(a, b) is Mark.RIGHT for a, b in zip(shuffled, parts, strict=True))
    assert (_mark(f"({', '.join(shuffled)})", f"({', '.join(parts)})") is Mark.RIGHT) is in_order


@settings(deadline=None, derandomize=True)
@given(formulas, formulas, st.sampled_from(["~", r"\,", r"\;", r"\!", r"\quad ", r"\ ", "  "]))
def test_spacing_and_sizes_say_nothing(one: str, other: str, space: str) -> None:
    for printed in (
        f"{space}{one}{space}",
        rf"\left({one}\right)",
        rf"\displaystyle {one}",
        one.replace("+", f"{space}+{space}").replace(r"\frac", r"\dfrac"),
        rf"${one}$.",
    ):
        assert _mark(printed, other) == _mark(one, other)


def _spellings(number: Fraction) -> list[str]:
    top, bottom = number.numerator, number.denominator
    sign = "-" if number < 0 else ""
    whole, rest = divmod(abs(top), bottom)
    spellings = [
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"{sign}\dfrac{{{abs(top)}}}{{{bottom}}}",
        f"{top}/{bottom}",
        f"{2 * top}/{2 * bottom}",
        rf"$\tfrac{{{-top}}}{{{-bottom}}}$",
        rf"{100 * number}\%" if bottom == 1 else rf"\frac{{{100 * top}}}{{{bottom}}}\%",
    ]
    if whole and rest:
        spellings += [rf"{sign}{whole} {rest}/{bottom}", rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}"]
    if bottom == 1:
        spellings += [str(top), f"{top:,}", f"{top:,}".replace(",", "{,}"), f"{top:,}".replace(",", r"\,")]
        spellings += [f"{top}.00", rf"{top} \times 10^0", f"{sign}{abs(top)}_{{10}}"]
    if 10**9 % bottom == 0:
        decimal = f"{abs(top) * 10**9 // bottom:010d}"
        spellings += [f"{sign}{decimal[:-9]}.{decimal[-9:]}", rf"{sign}{int(decimal)} \cdot 10^{{-9}}"]
    return spellings


@settings(deadline=None, derandomize=True)
@given(numbers, st.data())
def test_a_number_equals_itself_in_every_notation_and_its_neighbour_in_none(
    number: Fraction, data: st.DataObject
) -> None:
    gold = data.draw(st.sampled_from(_spellings(number)))
    for answer in _spellings(number):
        assert _mark(answer, gold) is Mark.RIGHT
    if number != 0:
        for answer in _spellings(number + 1):
            assert _mark(answer, gold) is Mark.WRONG


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.one_of(fragments, st.text()), st.one_of(fragments, st.text(), formulas))
def test_nothing_raises_and_rewards_are_numbers_or_none(text: str, gold: str) -> None:
    for mark in (verify, verify_leniently):
        for completion in (text, rf"\boxed{{{text}}}"):
            assert mark(completion, gold).reward in (0.0, 1.0, None)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(fragments)
def test_junk_without_the_digits_of_the_gold_is_not_paid(junk: str) -> None:
    assert _mark(junk, "7777777") is not Mark.RIGHT


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_thousand_mangled_answers_raise_nothing_and_earn_nothing(seed: int) -> None:
    """Answers with a piece of junk in them, against plain numbers that they do not have: no algebra is needed."""
    draw = random.Random(seed)
    for _ in range(50_000):
        at = draw.randrange(12)
        answer = "".join(draw.choices(FRAGMENTS, k=at)) + draw.choice(FORMULAS) + draw.choice(FRAGMENTS)
        for mark in (verify, verify_leniently):
            assert mark(rf"It is \boxed{{{answer}}}." if at % 2 else answer, "777777").mark is Mark.WRONG
