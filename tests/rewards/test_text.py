"""What is the same text: one row for each thing that `normalise` rewrites."""

import pytest

from rewards.latex.text import normalise

SPELLINGS = [
    (r"$\left(\dfrac12,\; 3\right)$.", r"(\frac{1}{2}, 3)"),
    (r"\displaystyle\Bigl[\tfrac{1}{2}\Bigr]", r"[\frac{1}{2}]"),
    (r"5\phantom{00}\tag{1}\hspace{1em}", "5"),
    (r"\textcolor{blue}{5}", "5"),
    (r"\mathbf{12\text{ cm}}", r"12\text{cm}"),
    (r"1{,}234{,\!}567", "1234567"),
    ("111, \\! 111", "111111"),
    (r"5{:}30", "5:30"),
    (r"5\ \%\ ", "5%"),
    (r"1\\[4pt]2", r"1\\2"),
    ("$x$ or $y$", "x or y"),
    (r"\$5 and \$6", "$5 and$6"),
    ("5 per cent", "5 percent"),
    (r"5\,{\rm cm}", r"5 \text{cm}"),
    (r"\operatorname{ln}2", r"\ln 2"),
    ("sin x", r"\sin x"),
    (r"\mathrm{P}(A)", "P(A)"),
    (r"1\text{, }2", "1, 2"),
    (r"\text{DF}_{16}", "DF_{16}"),
    ("2**3 <= x != 4...", r"2^3 \leq x \neq 4\ldots"),
    ("sqrt(2)pi", r"\sqrt{2}\pi"),
    ("(-inf, infinity)", r"(-\infty, \infty)"),
    ("1/2 x", r"\frac{1}{2} x"),
    (r"{9 \over 7}", r"\frac{9}{7}"),
    (r"{n \choose k}", r"\binom{n}{k}"),
    (r"\sqrt2+\sqrt[3]5+\sqrt\frac13", r"\sqrt{2}+\sqrt[3]{5}+\sqrt{\frac{1}{3}}"),
    (r"\log_{2}{8}", r"\log_2(8)"),
    (r"\sin x\cdot\cos x", r"\sin(x)\cdot\cos x"),
    (r"\log_e 2", r"\ln 2"),
    (r"0.1\bar6", r"0.1\bar{6}"),
    (r"\frac\pi 2 \frac1b \frac {1} {2}", r"\frac{\pi}{2} \frac{1}{b} \frac{1}{2}"),
    (r"90^{\circ}, 90^\circ, 90°, 90^o", "90°, 90°, 90°, 90^o"),
    (r"12^{\text{th}}, 12th", "12, 12"),
    ("2^(n+1), 2^-1, 2^10, x_12", "2^{n+1}, 2^{-1}, 2^{10}, x_{12}"),
    ("(204)_5", "204_5"),
    ("x^{2}, x^{2}3, x_{1}, x_{1}y", "x^2, x^{2}3, x_1, x_{1}y"),
    (r"-{\frac34}", r"-\frac{3}{4}"),
    (r"\mathbb R", r"\mathbb{R}"),
    (r"x=1\quad y=2", "x=1, y=2"),
    (r"\left\{\begin{array}{l}x\end{array}\right.", r"\begin{array}{l}x\end{array}"),
    ("x² ≤ ½·√70 − 3×10⁵", r"x^2 \leq \frac{1}{2}\cdot \sqrt{70} -3*10^5"),
    ("٤٢", "42"),
    ("2ⁿ", "2ⁿ"),
    ("αβ∈ℝ", r"\alpha \beta \in \mathbb{R}"),
]


@pytest.mark.parametrize(("text", "canonical"), SPELLINGS)
def test_one_spelling(text: str, canonical: str) -> None:
    assert normalise(text) == canonical


@pytest.mark.parametrize("canonical", [canonical for _, canonical in SPELLINGS])
def test_canonical_text_stays_as_it_is(canonical: str) -> None:
    assert normalise(normalise(canonical)) == normalise(canonical)
