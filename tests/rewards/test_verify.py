r"""The verifier's table: what is paid, what is not, and what is an error."""

import subprocess
import sys
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import Mark, check_gold, verify
from rewards.verdict import Verdict

RIGHT = [
    ("33", "33"),
    ("33.0", "33"),
    ("33.", "33"),
    (r"\$1,234.50", "1234.5"),
    ("1{,}234", "1234"),
    (r"12\,345\,678", "12345678"),
    (r"11,\! 111", "11111"),
    (r"\frac{8}{2}", "4.0"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"-\frac{3}{4}", "-0.75"),
    (r"\frac{-3}{4}", "-3/4"),
    ("1 1/2", "1.5"),
    (r"1\frac{1}{2}", "3/2"),
    (r"50\%", r"50 \%"),
    ("28", r"28\%"),
    (r"1.5 \times 10^3", "1500"),
    ("x = 4", "4"),
    (r"74°", r"74^\circ"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("x+1", "1 + x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\{2, 1\}", r"\{1,2\}"),
    (r"\sin^2 t", r"\sin^2t"),
    (r"\begin{pmatrix} 1 \\ 0.5 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac12 \end{pmatrix}"),
]
WRONG = [
    ("34", "33", "different numbers"),
    ("0.33", "0.34", "different numbers"),
    ("0.33", r"\frac13", "not equal by math-verify"),
    ("11/2", "1 1/2", "different numbers"),
    ("(2,1)", "(1,2)", "not equal by math-verify"),
    ("x-1", "1+x", "not equal by math-verify"),
    ("41 or 42", "42", "not equal by math-verify"),
    (r"\frac{1}{0}", "3", "not equal by math-verify"),
    (r"\neq 42", "42", "answer does not parse"),
]
UNPAID = [
    (r"Hence 42. \boxed{}", "42", "empty box"),
    (r"Hence 42. \boxed{ . }", "42", "empty box"),
    (r"Hence 42. \boxed{?}", "42", "answer does not parse"),
    (r"Hence 42. \boxed{@@@ 42 @@@}", "42", "answer does not parse"),
    (r"Hence 42. \boxed{\frac{}{}}", "42", "answer does not parse"),
    (r"\boxed{blah \foo{ 42 ##@@}.", "42", "no boxed answer"),
    (r"<think>\boxed{42}</think> The answer is 42.", "42", "no boxed answer"),
    (r"<think>\boxed{42}</think> \boxed{41}", "42", "different numbers"),
    (r"The answer is 42.", "42", "no boxed answer"),
    (r"\boxed{\sum_{k=1}^{100} k}", "5050", "unevaluated operator"),
    (r"\boxed{\gcd(12,18)}", "6", "unevaluated operator"),
    (r"\boxed{\operatorname{lcm}(2,3)}", "6", "unevaluated operator"),
    (r"\boxed{\begin{vmatrix}1&2\\3&4\end{vmatrix}}", "-2", "unevaluated operator"),
    (r"\boxed{\frac{d}{dx} x^2}", "2x", "unevaluated operator"),
    (r"\boxed{12+7*3}", "33", "unevaluated arithmetic"),
    (r"\boxed{\frac{1}{2}+\frac{1}{3}}", r"\frac{5}{6}", "unevaluated arithmetic"),
    (r"\boxed{x = 16 - 3 - 4}", "9", "unevaluated arithmetic"),
]
TOO_LARGE = [
    "9^{9^{9^{9}}}",
    "9^9^9^9",
    r"2^{100000000}",
    "9**9**9**9",
    "10000000!",
    "((9!)!)!",
    "20!!!",
    r"\binom{1000000}{500000}",
    "1" * 5_000,
    "(" * 30 + "1" + ")" * 30,
    "1=" * 10 + "1",
    r"\frac{" * 100_000,
    "x" * 60_000,
]
BAD_GOLDS = [
    ("", "gold is empty"),
    ("$$ $$", "gold is empty"),
    ("a = ?", "gold does not parse"),
    (r"\frac{1}{0}", "gold does not parse"),
    (r"\frac{}{}", "gold does not parse"),
    ("9^{9^{9}}", "gold too large to verify"),
    (r"\sum_{k=1}^{100} k", "gold has an unevaluated operator"),
]


def _box(answer: str) -> str:
    return rf"So the answer is \boxed{{{answer}}}."


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_right(answer: str, gold: str) -> None:
    assert verify(_box(answer), gold).mark is Mark.RIGHT
    assert verify(_box(gold), answer).mark is Mark.RIGHT
    assert check_gold(gold) is None


@pytest.mark.parametrize("answer", [r"5\text{L}", r"5\,\text{W}", r"5\mathrm{g}", r"5 \text{ cm}"])
def test_a_unit_after_the_number_is_no_variable(answer: str) -> None:
    assert verify(_box(answer), "5").mark is Mark.RIGHT
    assert verify(_box(answer), "6").mark is Mark.WRONG


@pytest.mark.parametrize(("answer", "gold", "reason"), WRONG)
def test_wrong(answer: str, gold: str, reason: str) -> None:
    assert verify(_box(answer), gold) == Verdict(mark=Mark.WRONG, reason=reason, answer=answer, gold=gold)


@pytest.mark.parametrize(("text", "gold", "reason"), UNPAID)
def test_hacks_are_not_paid(text: str, gold: str, reason: str) -> None:
    verdict = verify(text, gold)
    assert (verdict.mark, verdict.reason, verdict.reward) == (Mark.WRONG, reason, 0.0)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("answer", TOO_LARGE)
def test_an_answer_beyond_the_limits_is_wrong(answer: str) -> None:
    text = rf"\boxed{{{answer}}}"
    expected = "too large to verify" if answer.count("{") == answer.count("}") else "no boxed answer"
    assert (verify(text, "42").mark, verify(text, "42").reason) == (Mark.WRONG, expected)


@pytest.mark.parametrize(("gold", "reason"), BAD_GOLDS)
def test_a_gold_that_cannot_be_verified_is_an_error_whatever_the_completion(gold: str, reason: str) -> None:
    assert check_gold(gold) == reason
    for text in (_box(gold), _box("42"), "no box"):
        assert (verify(text, gold).mark, verify(text, gold).reason) == (Mark.ERROR, reason)
        assert verify(text, gold).reward is None


def test_a_verdict_carries_the_answer_and_the_gold() -> None:
    expected = Verdict(mark=Mark.RIGHT, reason="equal as numbers", answer="33.0", gold="33")
    assert verify(_box("33.0"), "33") == expected


def test_outside_a_main_thread_a_symbolic_answer_is_an_error_and_a_number_is_not() -> None:
    verdicts: list[Verdict] = []

    def work() -> None:
        verdicts.append(verify(_box("33.0"), "33"))
        verdicts.append(verify(_box(r"\sqrt{1089}"), "33"))
        verdicts.append(verify(_box(r"2\sqrt{2}"), r"\sqrt{8}"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [verdict.mark for verdict in verdicts] == [Mark.RIGHT, Mark.ERROR, Mark.ERROR]
    assert {verdict.reason for verdict in verdicts[1:]} == {"not in a main thread"}


def _spellings(number: Fraction) -> list[str]:
    top, bottom = number.numerator, number.denominator
    sign = "-" if number < 0 else ""
    spellings = [
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"{sign}\dfrac{{{abs(top)}}}{{{bottom}}}",
        f"{top}/{bottom}",
        f"{2 * top}/{2 * bottom}",
        rf"$\tfrac{{{-top}}}{{{-bottom}}}$",
    ]
    if bottom == 1:
        spellings += [str(top), f"{top:,}", f"{top:,}".replace(",", "{,}"), f"{top:,}".replace(",", r"\,"), f"{top}.00"]
    return spellings


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.integers(-(10**9), 10**9).map(Fraction), st.fractions(max_denominator=10**6)), st.data())
def test_a_number_equals_itself_in_every_spelling_and_its_neighbour_in_none(
    number: Fraction, data: st.DataObject
) -> None:
    gold = data.draw(st.sampled_from(_spellings(number)))
    for answer in _spellings(number):
        assert verify(_box(answer), gold).reason in ("same text", "equal as numbers")
    for answer in _spellings(number + 1):
        assert verify(_box(answer), gold).mark is Mark.WRONG


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(
        st.sampled_from([*r"\{}()[]^_!=,.$%&+-*/ 013456789abdfrcx√π°", r"\frac", r"\boxed{", r"\sqrt", r"\text{"])
    ).map("".join)
)
def test_junk_without_the_digits_of_the_gold_is_wrong_and_raises_nothing(junk: str) -> None:
    assert verify(_box(junk), "2222").mark is Mark.WRONG


def test_importing_rewards_and_checking_numbers_leaves_sympy_alone() -> None:
    program = (
        r"import sys, rewards; rewards.verify(r'\boxed{4}', '5'); print('sympy' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
