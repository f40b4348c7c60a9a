r"""The verifier's tables: what is paid, what is not, and what is an error."""

import subprocess
import sys
import threading

import pytest

from rewards import Mark, Verdict, check_gold, verify, verify_leniently

NUMBERS = [
    ("33.0", "33"),
    ("33.", "33"),
    (r"\$1,234.50", "1234.5"),
    ("1{,}234", "1234"),
    (r"12\,345\,678", "12345678"),
    (r"11,\! 111", "11111"),
    ("1 234 567", "1234567"),
    (r"\frac{8}{2}", "4.0"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"-\frac{3}{4}", "-0.75"),
    (r"\frac{-3}{4}", "-3/4"),
    ("1 1/2", "1.5"),
    (r"1\frac{1}{2}", "3/2"),
    (r"1.5 \times 10^3", "1500"),
    ("1.5e3", "1500"),
    (r"2 \cdot 10^{-3}", "0.002"),
    (r"0.\overline{3}", r"\frac{1}{3}"),
    ("0.333333333333333", r"\frac{1}{3}"),
    (r"\frac{10}{3}", "3.33333333"),
    ("4130_5", "4130_{5}"),
    ("twelve", "12"),
    (r"\text{three hundred and forty-two}", "342"),
    ("٤٢", "42"),
    ("½", "0.5"),
    ("−7", "-7"),
    ("10²", r"10^{2}"),
    (r"-\left(\frac34\right)", r"-\frac{3}{4}"),
    (r"\frac {1} {2}", "1/2"),
    ("-(-6)", "6"),
    ("(-3)/4", r"-\frac{3}{4}"),
    (r"3\times{10}^{8}", "3 * 10^8"),
    ("0.142857142857...", r"\frac17"),
    (r"0.1\bar6", r"\frac{1}{6}"),
    (r"111, \! 111, \! 111", "111111111"),
    (r"\mathbf{\frac97}", r"\frac{9}{7}"),
]
QUANTITIES = [
    ("28", r"28\%"),
    (r"50\%", r"50 \%"),
    (r"50\%", "0.5"),
    ("50 percent", r"\frac{1}{2}"),
    (r"74°", r"74^\circ"),
    ("74 degrees", r"74^\circ"),
    (r"100\text{ cm}", r"1\text{ m}"),
    ("5 million", "5000000"),
    (r"\$5 \text{ million}", "5000000"),
    ("100 dollars", r"\$100"),
    ("150 cents", r"\$1.50"),
    ("10 weeks", "10"),
    (r"12\text{ cm}^2", r"12 \text{ square centimeters}"),
    ("60 km/h", r"60 \text{ kilometers per hour}"),
    (r"3 \text{ red apples}", r"3 \text{ apples}"),
    (r"12\,\rm cm", r"12\text{ cm}"),
    (r"12 \mathrm{~km} / \mathrm{h}", "12 km/h"),
    (r"5:30\text{ p.m.}", "5:30 PM"),
    ("6 PM", "6:00 PM"),
    (r"12^\circ\text{C}", "12"),
    ("12th", "12"),
    ("USD 5", "5 dollars"),
    (r"9.8\text{ m/s}^2", "9.8 meters per second squared"),
    (r"\frac{180^\circ}{7}", r"\frac{180^{\circ}}{7}"),
    ("75 cents", "0.75"),
    (r"25\%\text{ increase}", r"25\%"),
]
FORMULAS = [
    ("x+1", "1 + x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("√2", r"\sqrt 2"),
    (r"\sin^2 t", r"1-\cos^2t"),
    (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt3}{3}"),
    (r"\sqrt{17}", "4.123105625617661"),
    (r"\ln x^2", r"2\ln x"),
    ("3-4i", "-4i+3"),
    (r"x^{5000}x^{5000}", "x^{9999}x"),
    (r"\log_{2}3", r"\log_2 3"),
    (r"\sin{20^\circ}", r"\sin 20^\circ"),
    ("√70", r"\sqrt{70}"),
    ("y^3x^2", "x^2y^3"),
    (r"e^{x^2}", r"e^{x\cdot x}"),
    (r"\vec a+\vec b", r"\vec{b}+\vec{a}"),
    ("-1/2 x + 3", r"3-\frac{x}{2}"),
]
STRUCTURES = [
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("(100, 200)", "(100,200)"),
    (r"\{2, 1\}", r"\{1,2\}"),
    ("2, 1", "1,2"),
    ("2 and 1", r"1 \text{ and } 2"),
    ("1,234 and 5,678", "5678, 1234"),
    (r"\pm 3", "3, -3"),
    (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"),
    (r"(-\infty, 1) \cup [2, 3]", r"[2,3]\cup(-\infty,1)"),
    (r"-2 \le x < 7", "[-2,7)"),
    ("x > 5", r"(5, \infty)"),
    ("6:4", "3:2"),
    ("20:34", "20:34:00"),
    (r"\begin{bmatrix} 1 \\ 0.5 \end{bmatrix}", r"\begin{pmatrix} 1 \\ \frac12 \end{pmatrix}"),
    ("no solution", r"\emptyset"),
    ("-2 or 2", r"\pm 2"),
    (r"i\text{ and }-i", "i, -i"),
    (r"\{0, \pm 1\}", r"\{-1, 0, 1\}"),
    (r"0 < x < \pi", r"(0, \pi)"),
    ("all real numbers", r"\mathbb{R}"),
    (r"x \le -1 \text{ or } x \ge 3", r"(-\infty,-1]\cup[3,\infty)"),
    (r"\{x \mid x > 5\}", "x > 5"),
    (r"\left[\begin{array}{cc}1&2\\[4pt]3&4\end{array}\right]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"(2, -1)", r"\begin{pmatrix} 2 \\ -1 \end{pmatrix}"),
    (r"\Bigl(\tfrac12, 3\Bigr)", r"(\frac{1}{2},3)"),
]
RELATIONS = [
    ("x = 4", "4"),
    ("4 = x", "x = 4"),
    (r"x = \frac{1}{2} = 0.5", "0.5"),
    ("f(x) = 2x", "y = 2x"),
    ("2y - 4x = 6", "y = 2x + 3"),
    ("y = 2, x = 1", "x = 1, y = 2"),
    ("x = 1, y = 2", "(1, 2)"),
    (r"0.56 = 56\%", r"56\%"),
    (r"\sqrt{16} = 4", "4"),
    (r"\text{Area} = 12", "12"),
    ("a + b = 12", "12"),
    (r"x = \frac{10}{3} \approx 3.33", r"\frac{10}{3}"),
    (r"\begin{cases} x = 2 \\ y = 3 \end{cases}", "x=2, y=3"),
]
WORDS = [
    (r"\text{Evelyn}", "Evelyn"),
    ("evelyn", r"\text{Evelyn}"),
    (r"\text{(B)}", "B"),
    ("(b)", "B"),
    ("B. Evelyn", "B"),
    (r"\text{even}", "even"),
    ("a parallelogram", "parallelogram"),
    (r"\textbf{(B)}\ \frac{1}{2}", "B"),
    (r"(B) 12", "12"),
]
WRONG = [
    ("34", "33", "different numbers"),
    ("0.33", r"\frac13", "different numbers"),
    ("0.333333", r"\frac13", "different numbers"),
    ("0.1234567", "0.1234571", "different numbers"),
    ("11/2", "1 1/2", "different numbers"),
    ("3.141592653589793", r"\pi", "a decimal for an exact gold"),
    ("204_5", "204_6", "another base"),
    ("204", "204_6", "another base"),
    (r"5\text{ cm}", r"5\text{ m}", "different numbers"),
    (r"5\text{ cm}", r"5\text{ kg}", "different units"),
    ("20 units", r"20^\circ", "different units"),
    ("500 cents", r"\$500", "different numbers"),
    ("5", r"5 \text{ million}", "different numbers"),
    ("4", "4t", "not equal by algebra"),
    ("2", "2ab", "not equal by algebra"),
    ("x-1", "1+x", "not equal by algebra"),
    (r"\frac{1}{10^{20}}", r"\frac{1}{10^{30}}", "not equal by algebra"),
    (r"|x|", "x", "not equal by algebra"),
    ("(2,1)", "(1,2)", "different numbers"),
    ("[1,2]", "(1,2)", "other brackets"),
    ("1", "1, 2", "fewer answers than the gold"),
    ("1, 2, 3", "1, 2", "more answers than the gold"),
    ("x=1, y=2", "(2,1)", "different numbers"),
    ("2x > -6", "x < -3", "another kind of answer"),
    ("y = 3", "x = 3", "another variable"),
    ("1:00", "2:00", "different times"),
    (r"\frac{1}{0}", "3", "a formula for a plain number"),
    ("vile", "evil", "different words"),
    (r"\text{A or B}", "A", "several answers"),
    (r"(A) or (B)", "A", "several answers"),
    (r"\sin 20", r"\sin 20^\circ", "not equal by algebra"),
    (r"|xy|", "-xy", "not equal by algebra"),
    (r"a+b+|c|+d", "a+b+c+d", "not equal by algebra"),
    ("2ⁿ", "2n", "answer does not parse"),
    (r"|\infty|", r"6\pi", "answer does not parse"),
    (r"2\text{ x}", "2x", "answer does not parse"),
    ("y=1, x=2", "(1,2)", "names in another order"),
    ("y < 5", "x < 5", "another variable"),
    ("5-(-3)", "53", "unevaluated operation"),
    ("(1),(234)", "1234", "several answers"),
    (r"1\implies 234", "1234", "answer does not parse"),
    ("x=1,x=2", "x=1,y=2", "different variables"),
    ("x=5,y=5", "x=5", "several answers"),
    ("x+y=5", "x=5", "another variable"),
    ("odd=even", "even", "another kind of answer"),
    (r"\text{other than}=42", "42", "a chain of different values"),
    ("C", "c", "another kind of answer"),
    (r"(A)\text{ wrong}", "A", "another kind of answer"),
    (r"42\approx 1e9", "42", "a chain of different values"),
    (r"3\cdot4 \pi", r"12\pi", "unevaluated operation"),
    ("101_{1}x", "101x", "answer does not parse"),
    ("9.8 meters per second squared", "9.8 meters", "different units"),
    (r"\begin{pmatrix}\end{pmatrix}", "(1,2)", "answer does not parse"),
    (
        r"\begin{pmatrix}1\\2\end{pmatrix} \text{ cm}",
        r"\begin{pmatrix}1\\2\end{pmatrix} \text{ m}",
        "different numbers",
    ),
    ("five and three", "8", "several answers"),
    (r"4\frac{8}{2}", "8", "a formula for a plain number"),
]
UNPAID = [
    ("Hence 42. \\boxed{}", "42", "empty box"),
    (r"Hence 42. \boxed{ . }", "42", "empty box"),
    (r"Hence 42. \boxed{?}", "42", "answer does not parse"),
    (r"Hence 42. \boxed{@@@ 42 @@@}", "42", "answer does not parse"),
    (r"Hence 42. \boxed{\frac{}{}}", "42", "a formula for a plain number"),
    (r"\boxed{blah \foo{ 42 ##@@}.", "42", "no answer found"),
    (r"<think>\boxed{42}</think> The answer is 42.", "42", "no answer found"),
    (r"<think>\boxed{42}</think> \boxed{41}", "42", "different numbers"),
    (r"The answer is 42.", "42", "no answer found"),
    (r"\boxed{41} or \boxed{42}", "42", "several answers"),
    (r"\boxed{41, 42}", "42", "several answers"),
    (r"\boxed{41 \text{ or } 42}", "42", "several answers"),
    (r"\boxed{\pm 42}", "42", "several answers"),
    (r"\boxed{41 = 42}", "42", "a chain of different values"),
    (r"\boxed{x = 41 = 42}", "42", "a chain of different values"),
    (r"\boxed{41 \approx 42}", "42", "a chain of different values"),
    (r"\boxed{42 \approx 100}", "42", "a chain of different values"),
    (r"\boxed{2+2=42}", "42", "a chain of different values"),
    (r"\boxed{\lor}", "42", "answer does not parse"),
    (r"\boxed{\not=42}", "42", "a chain of different values"),
    (r"\boxed{wrong=42}", "42", "a chain of different values"),
    (r"\boxed{\pi=42}", "42", "a chain of different values"),
    (r"\boxed{5\text{ incorrect}}", "5", "answer does not parse"),
    (r"\boxed{5\text{ squared}}", "5", "answer does not parse"),
    (r"\boxed{-\boxed{42}}", "42", "answer does not parse"),
    (r"\boxed{41}/\boxed{42}", "42", "several answers"),
    (r"$-\boxed{42}$", "42", "different numbers"),
    (r"\boxed{84\div 2}", "42", "unevaluated operation"),
    (r"\boxed{\cos(-150^\circ)}", r"-\frac{\sqrt3}{2}", "unevaluated operation"),
    (r"\boxed{(2+3i)(1-2i)}", "8-i", "unevaluated operation"),
    (r"\boxed{\sqrt{4^2+1^2}}", r"\sqrt{17}", "unevaluated operation"),
    (r"\boxed{\pi(4^2-2^2)}", r"12\pi", "unevaluated operation"),
    (r"\boxed{2(3x)}", "6x", "unevaluated operation"),
    (r"\boxed{(x+1)+2}", "x+3", "unevaluated operation"),
    (r"\boxed{\sqrt{54}\cdot\sqrt{32}}", r"24\sqrt3", "unevaluated operation"),
    (r"\boxed{\neq 42}", "42", "answer does not parse"),
    (r"\boxed{-2x < 6}", "x > -3", "another kind of answer"),
    (r"\boxed{2x = -6}", "x = -3", "a chain of different values"),
    (r"\boxed{2x = -3}", "x = -3", "a chain of different values"),
    (r"\boxed{\frac{\pi}{2} + \frac{\pi}{3}}", r"\frac{5\pi}{6}", "unevaluated operation"),
    (r"\boxed{2x + 3x}", "5x", "unevaluated operation"),
    (r"\boxed{x > 41}", "42", "another kind of answer"),
    (r"\boxed{\sum_{k=1}^{100} k}", "5050", "unevaluated operation"),
    (r"\boxed{\gcd(12,18)}", "6", "unevaluated operation"),
    (r"\boxed{\max\{1,6\}}", "6", "answer does not parse"),
    (r"\boxed{\begin{vmatrix}1&2\\3&4\end{vmatrix}}", "-2", "answer does not parse"),
    (r"\boxed{\frac{d}{dx} x^2}", "2x", "unevaluated operation"),
    (r"\boxed{12+7*3}", "33", "unevaluated operation"),
    (r"\boxed{\frac{1}{2}+\frac{1}{3}}", r"\frac{5}{6}", "unevaluated operation"),
    (r"\boxed{x = 16 - 3 - 4}", "9", "unevaluated operation"),
    (r"\boxed{\sqrt{1089}}", "33", "unevaluated operation"),
    (r"\boxed{2^{10}}", "1024", "unevaluated operation"),
    (r"\boxed{5!}", "120", "unevaluated operation"),
    (r"\boxed{17 \bmod 5}", "2", "unevaluated operation"),
    (r"\boxed{3\pi + 2\cdot 4\pi}", r"11\pi", "unevaluated operation"),
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
    "1=" * 30 + "1",
    r"\frac{" * 100_000,
    "x" * 60_000,
]
BAD_GOLDS = [
    ("", "gold is empty"),
    ("$$ $$", "gold is empty"),
    ("a = ?", "gold does not parse"),
    (r"\frac{1}{0}", "gold does not parse"),
    (r"\frac{}{}", "gold does not parse"),
    (r"\begin{pmatrix}\end{pmatrix}", "gold does not parse"),
    ("9^{9^{9}}", "gold too large to verify"),
]


def _box(answer: str) -> str:
    return rf"So the answer is \boxed{{{answer}}}."


@pytest.mark.parametrize(("answer", "gold"), [*NUMBERS, *QUANTITIES, *FORMULAS, *STRUCTURES, *RELATIONS, *WORDS])
def test_right(answer: str, gold: str) -> None:
    assert verify(_box(answer), gold).mark is Mark.RIGHT
    assert verify(_box(gold), gold).mark is Mark.RIGHT
    assert check_gold(gold) is None


@pytest.mark.parametrize(("answer", "gold", "reason"), WRONG)
def test_wrong(answer: str, gold: str, reason: str) -> None:
    verdict = verify(_box(answer), gold)
    assert (verdict.mark, verdict.reason, verdict.answer) == (Mark.WRONG, reason, answer)


@pytest.mark.parametrize(("text", "gold", "reason"), UNPAID)
def test_hacks_are_not_paid(text: str, gold: str, reason: str) -> None:
    verdict = verify(text, gold)
    assert (verdict.mark, verdict.reason, verdict.reward) == (Mark.WRONG, reason, 0.0)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("answer", TOO_LARGE)
def test_an_answer_beyond_the_limits_is_wrong(answer: str) -> None:
    text = rf"\boxed{{{answer}}}"
    expected = "too large to verify" if answer.count("{") == answer.count("}") else "no answer found"
    assert (verify(text, "42").mark, verify(text, "42").reason) == (Mark.WRONG, expected)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "answer",
    ["{" + r"\a " * 300 + "{{}}}", r"x+{" + r"\alpha\beta" * 80 + "{{}}}", "A" * 900 + "7=5", "1 " * 450 + "!"],
)
def test_no_pattern_backtracks_for_ever(answer: str) -> None:
    assert verify(rf"\boxed{{{answer}}}", "x+1").mark is Mark.WRONG
    assert check_gold(answer) is not None


@pytest.mark.parametrize(("gold", "reason"), BAD_GOLDS)
def test_a_gold_that_cannot_be_verified_is_refused(gold: str, reason: str) -> None:
    assert check_gold(gold) == reason


@pytest.mark.parametrize("gold", ["", "a = ?", "9^{9^{9}}"])
@pytest.mark.parametrize("text", [_box("42"), _box(""), "no box"])
def test_a_bad_gold_is_an_error_whatever_the_completion(text: str, gold: str) -> None:
    assert verify(text, gold).mark is Mark.ERROR
    assert verify(text, gold).reward is None


@pytest.mark.parametrize(
    "gold", [r"So $x$ is $\boxed{\frac{1}{2}}$.", "half of one\n#### 1/2", "x" * 5_000 + r"\boxed{0.5}"]
)
def test_a_gold_may_be_a_worked_solution(gold: str) -> None:
    assert check_gold(gold) is None
    assert verify(_box("0.5"), gold).mark is Mark.RIGHT
    assert verify(_box("2"), gold).mark is Mark.WRONG


def test_what_an_answer_may_leave_to_its_reader_is_what_the_gold_does() -> None:
    assert verify(_box(r"\binom{n}{2} + 1"), r"1+\binom{n}{2}").mark is Mark.RIGHT
    assert verify(_box(r"\binom{n}{2}"), r"\frac{n(n-1)}{2}").reason == "unevaluated operation"
    assert verify(_box("10!"), "10!").mark is Mark.RIGHT


def test_a_verdict_says_what_was_extracted_how_and_what_decided() -> None:
    verdict = verify(_box("33.0"), "33")
    assert verdict == Verdict(
        mark=Mark.RIGHT,
        reason="equal as numbers",
        answer="33.0",
        gold="33",
        rule=r"last \boxed{}",
        compared="structure",
    )
    assert verdict.seconds > 0
    assert verify(_box("x+1"), "1+x").compared == "algebra"


def test_an_answer_that_hangs_algebra_is_an_error_and_the_next_one_is_not() -> None:
    hostile, gold = (rf"F_n = \sum_{{k=0}}^{{n-{i}}} F_k F_{{n-k-{i}}}" for i in (2, 1))
    verdict = verify(_box(hostile), gold)
    assert (verdict.mark, verdict.reason, verdict.answer) == (Mark.ERROR, "timed out", hostile)
    assert verify(_box("x+1"), "1+x").mark is Mark.RIGHT


def test_any_thread_can_verify_and_gets_the_same_verdicts() -> None:
    verdicts: list[Verdict] = []

    def work() -> None:
        verdicts.extend(verify(_box(answer), r"\sqrt{8}") for answer in (r"2\sqrt{2}", r"2\sqrt{3}"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verdict.mark for verdict in verdicts) == [Mark.RIGHT] * 3 + [Mark.WRONG] * 3


def test_lenient_takes_answers_where_other_models_put_them() -> None:
    text = "So she sold 48 + 24 = 72 clips.\n#### 72"
    assert verify(text, "72").reason == "no answer found"
    assert verify_leniently(text, "72").rule == "after ####"
    assert verify_leniently("The answer is (B).", "B").mark is Mark.RIGHT


def test_a_truncated_completion_without_an_answer_has_a_reason_of_its_own() -> None:
    assert verify("So 12 plus", "33").of_truncated().reason == "truncated before an answer"
    assert verify(_box("33"), "33").of_truncated() == verify(_box("33"), "33")


def test_importing_rewards_and_checking_numbers_leaves_sympy_alone() -> None:
    program = (
        r"import sys, rewards; rewards.verify(r'\boxed{4}', '5'); rewards.verify(r'\boxed{x+1}', '1+x');"
        r"print('sympy' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
