r"""Equality of parsed answers: exact numbers, sets of solutions, percentages."""

import pytest
from sympy import I, Integer, Interval, Rational, oo

from rewards.answers.equality import DIGITS, equal, is_rounding, parse_latex


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        ("0.125", Rational(1, 8)),
        ("0.1234567890123456789", Rational(1234567890123456789, 10**19)),
        (r"4.5\cdot 10^{-7}", Rational(9, 2 * 10**7)),
        (r"\sqrt{81}", Integer(9)),
        ("{I}", I),
        (r"x > 4 \text{ or } x < 4.5", Interval(-oo, oo)),
        (r"x > 4 \text{ and } x \le 4.5", Interval(4, Rational(9, 2), left_open=True)),
    ],
)
def test_the_value_of_latex(latex, value):
    assert parse_latex(latex) == value


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        # numbers are exact
        (r"\frac{1}{6}", "0.16666666666666666667", False),
        (f"{10**70}", f"{10**70}+1", False),
        (r"\frac{7^{800}+1}{7^{801}}", r"\frac{1}{7}", False),
        (r"\frac{7^{800}+1}{7^{801}}", r"\frac{1}{7}+7^{-801}", True),
        (r"\sqrt{6}", r"\sqrt{2}\sqrt{3}", True),
        (r"\sqrt{6}", r"\sqrt{6}+10^{-90}", False),
        (r"\sqrt{6}", r"\sqrt{6+10^{-90}}", False),
        (r"\sqrt{6}", rf"\sqrt{{6+10^{{-{2 * DIGITS}}}}}", True),  # the documented limit
        (r"\pi\cdot 10^{-3000}", r"2\pi\cdot 10^{-3000}", False),  # small, but not 0
        (r"\pi\cdot 10^{-3000}", "0", False),
        ("1", r"\sqrt{4+2\sqrt{3}}-\sqrt{3}", True),  # a difference that sympy does not simplify to 0
        (r"\cos(\frac{\pi}{7})", r"-\cos(\frac{6\pi}{7})", True),
        (r"\{1, \frac{1}{3}\}", r"\{1, 0.333333333\}", False),
        (r"(1, \sqrt{6})", r"(1, \sqrt{6}+10^{-90})", False),
        ("x", "x+10^{-90}", False),
        ("0.5x", r"\frac{x}{2}", True),
        # complex numbers
        ("(2+{I})^{2}", "3+4{I}", True),
        ("(2+{I})^{2}", "3-4{I}", False),
        ("{I}", "{I}+10^{-90}", False),
        # no numbers
        (r"\frac{1}{0}", r"\frac{1}{0}", False),
        (r"\infty", r"\infty", True),
        (r"\infty", r"-\infty", False),
        # percentages
        (r"8\%", "8", True),
        (r"8\%", "0.08", True),
        (r"8\%", r"8.0\%", True),
        (r"8\%", r"800\%", False),
        (r"\frac{2}{25}", r"8\%", True),
        (r"8\%", "0.8", False),
        # sets of solutions
        ("[3,8)", r"3 \le x < 8", True),
        (r"3 \le x < 8", "[3,8)", True),
        (r"3 \le x < 8", r"8 > x \ge 3", True),
        (r"3 \le x < 8", r"3 \le y < 8", False),
        ("[3,8)", r"3 \le x \le 8", False),
        (r"x \in [3,8)", r"3 \le x < 8", True),
        (r"(-\infty,3)\cup(8,\infty)", r"x < 3 \text{ or } x > 8", True),
        (r"x < 3 \text{ or } x > 8", r"x > 8 or x < 3", True),
        (r"(-\infty,3)\cup(3,\infty)", r"x \ne 3", True),
        ("(3,8)", r"3 < x \text{ or } x < 8", False),
        ("(-4,4)", "|x| < 4", True),
        (r"3 < x < 8", r"\{3,8\}", False),
        (r"x \in \{3,8\}", "3 < x < 8", False),
        (r"x \in \{3,8\}", "x = 3, x = 8", True),
        (r"\{2\}\cup(3,8)", r"x = 2 \text{ or } 3 < x < 8", True),
        (r"\{2\}\cup(3,8)", r"x = 2 \text{ and } 3 < x < 8", False),
        (r"\mathbb{R}", r"(-\infty,\infty)", True),
        # both signs
        (r"\frac{5\pm\sqrt{6}}{7}", r"\frac{5+\sqrt{6}}{7}, \frac{5-\sqrt{6}}{7}", True),
        (r"\frac{5\pm\sqrt{6}}{7}", r"\frac{5+\sqrt{6}}{7}", False),
        (r"x = \frac{5\pm\sqrt{6}}{7}", r"\frac{5\mp\sqrt{6}}{7}", True),
        ("x = 1, x = 5\\pm\\sqrt{6}", "x = 5+\\sqrt{6}, x = 1, x = 5-\\sqrt{6}", True),
        ("x = 1, x = 5\\pm\\sqrt{6}", "x = 5+\\sqrt{6}, x = 1", False),
        # conditions on one variable
        (r"(-\infty,3)\cup(3,8)", r"x < 8, x \ne 3", True),
        (r"(-\infty,3)\cup(3,8)", r"x < 8, y \ne 3", False),
        ("(3,8)", "x > 3, x < 8", True),
        (r"(-\infty,3)\cup(8,\infty)", "x < 3, x > 8", True),
        ("(3,8)", "x < 3, x > 8", False),
        (r"(-\infty,3)\cup(8,\infty)", r"(8,\infty) or (-\infty,3)", True),
        (r"(-\infty,3)\cup(8,\infty)", r"(8,\infty), (-\infty,4)", False),
        (r"x < 3 \text{ or } x > 8", r"x < 3 \text{ or } y > 8", False),
        (r"x < 3 \text{ and } y > 8", r"y > 8 \text{ and } x < 3", True),
        (r"x < 3 \text{ and } y > 8", r"y < 3 \text{ and } x > 8", False),
        # lists with percentages
        (r"30\%, 70\%", r"70\%, 30\%", True),
        (r"30\%, 70\%", "0.3, 0.7", True),
        (r"30\%, 70\%", r"30\%", False),
        (r"30\%, 70\%", r"30\%, 60\%", False),
        (r"\frac{3}{10}", r"\frac{3}{10} \text{ or } 30\%", True),
        (r"\frac{3}{10}", r"\frac{3}{10} \text{ or } 40\%", False),
        # bases
        ("64_7", "64_{7}", True),
        ("64_7", "64_{9}", False),
        ("64_7", "46_{7}", False),
        ("64_7", "064_7", True),
        ("64_7", "64", True),
        ("64", "64_7", True),
        ("C4_{16}", "C4_{16}", True),
        ("C4_{16}", "C4_{13}", False),
        # times of day and ratios
        ("6:40", "06:40", True),
        ("6:40", "3:20", False),
        ("6:40", r"\frac{3}{20}", False),  # a ratio would be in lowest terms
        ("7:20", r"\frac{7}{20}", True),
        ("7:05", r"\frac{7}{5}", False),
        (r"\frac{3}{4}", "15:20", True),
        (r"6:40\text{am}", "6:40", True),
        (r"6:40\text{am}", r"6:40\text{pm}", False),
        (r"6:40\text{pm}", "18:40", True),
        (r"12:40\text{am}", "0:40", True),
        (r"12:40\text{am}", "12:40", True),
        (r"12:40\text{pm}", "0:40", False),
        (r"7:20\text{am}", r"\frac{7}{20}", False),
        (r"6\text{pm}", r"6:00\text{pm}", True),
        (r"6\text{pm}", "6", True),
        (r"6\text{pm}", r"6\text{am}", False),
        # a percentage that is no plain number
        (r"8\frac{1}{2}\%", "8.5", True),
        (r"8\frac{1}{2}\%", r"\frac{17}{2}\%", True),
        (r"8\frac{1}{2}\%", r"8\%", False),
        # equations of numbers
        ("8", "3+5 = 8", True),
        ("8", "9 = 8", False),
        ("8", "8 = x", True),
        ("8", "9 = x", False),
        ("0.67", r"x = \frac{2}{3} = 0.67", True),
        ("0.67", r"x = \frac{2}{5} = 0.67", False),
        # a column and a point
        (r"\begin{pmatrix}6\\7\\8\end{pmatrix}", "(6,7,8)", True),
        (r"\begin{pmatrix}6\\7\end{pmatrix}", "(6,7)", True),
        ("(6,7)", r"\begin{pmatrix}6\\7\end{pmatrix}", True),
        (r"\begin{pmatrix}6\\7\end{pmatrix}", "(7,6)", False),
        (r"\begin{pmatrix}6\\7\end{pmatrix}", "[6,7)", False),
        (r"\begin{pmatrix}6&7\end{pmatrix}", "(6,7)", False),
        (r"\begin{array}{c}64\end{array}", "64", True),
        # a sign for each coordinate
        (r"(\pm 8, 0)", "(-8,0), (8,0)", True),
        (r"(\pm 8, \pm 3)", "(8,3), (8,-3), (-8,3), (-8,-3)", True),
        (r"(8,3), (-8,-3)", r"(\pm 8, \pm 3)", False),
        (r"(8,-3), (-8,3)", r"(\pm 8, \mp 3)", True),
        (r"(\pm 8, 0)", "(8,0)", False),
        (r"8\cdot (1 \pm \sqrt{3})", r"8+8\sqrt{3}, 8-8\sqrt{3}", True),
        (r"8\cdot (1 \pm \sqrt{3})", r"8+8\sqrt{3}", False),
        # chains of equal numbers
        ("0.6", r"\frac{9}{15} = \frac{3}{5} = 0.6", True),
        ("0.6", r"\frac{9}{15} = 0.6 = 60\%", True),
        ("0.6", r"\frac{9}{15} = 0.5 = 0.6", False),
        ("0.6", "0.6 = 0.7 = 0.6", False),
        ("0.6", r"P(X \mid Y) = \frac{9}{15} = 0.6", True),
        ("c = 8", "c = 3+5 = 8", True),
        ("c = 8", "d = 3+5 = 8", False),
        (r"\sqrt{6}", r"\sqrt{6} = 2.45 = \sqrt{6}", True),
        # an equation of numbers as the reference answer
        ("4! = 24", "24", True),
        ("4! = 24", "4!", True),
        ("4! = 24", "x = 24", True),
        ("4! = 24", "4", False),
        ("4! = 24", "4! = 25", False),
        # memberships
        (r"(0,4)\cup (6,\infty)", r"x\in(0,4) \text{ or } x\in(6,\infty)", True),
        (r"\{4\}\cup (6,\infty)", r"x = 4 \text{ or } x\in(6,\infty)", True),
        (r"(0,4)\cup (6,\infty)", r"x\in(0,4] \text{ or } x\in(6,\infty)", False),
        (r"(0,4)\cup (6,\infty)", r"x\in(0,4) \text{ and } x\in(6,\infty)", False),
        (r"(0,4)", r"x\in(0,6) \text{ and } x\in(-2,4)", True),
        # roots with and without indices
        ("x_1 = 4, x_2 = 3", "x = 3, x = 4", True),
        ("x = 3, x = 4", "x_1 = 4, x_2 = 3", True),
        ("x_1 = 4, x_2 = 3", "x = 3", False),
        ("x_1 = 4, x_2 = 3", "y = 3, y = 4", False),
        ("a_1 = 4, a_2 = 3", "a_1 = 3, a_2 = 4", False),
        ("a_1 = 4, a_2 = 3", "a_2 = 4, a_3 = 3", False),
        # digits that are all letters
        ("FAD_{16}", "FAD_{16}", True),
        ("FAD_{16}", "FED_{16}", False),
        ("FAD_{16}", "FAD_{14}", False),
        # a point and equations
        ("(4,3)", "x = 4, y = 3", True),
        ("(4,3)", "y = 3, x = 4", True),
        ("(4,3)", "x = 3, y = 4", False),
        ("x = 4, y = 3", "(3,4)", False),
        # chains of names
        ("a = b = c = 4", "a = 4", False),
        ("a = b = c = 4", "a = 4, b = 4, c = 4", True),
        ("a = b = c = 4", "(4,4,4)", True),
        ("a = b = c = 4", "(4,4,3)", False),
        ("a = 3, b = c = 4", "(3,4,4)", True),
        ("a = 3, b = c = 4", "a = 3, b = 4", False),
        ("4", "a = b = 4", True),
        # primes after a letter
        ("B'", "B^{\\prime}", True),
        ("B", "B'", False),
        ("y''+y = 0", r"y+y^{\prime\prime} = 0", True),
        ("y''+y = 0", "2y = 0", False),
        ("y''+y = 0", "y'+y = 0", False),
    ],
)
def test_equality(reference, answer, expected):
    assert equal(parse_latex(reference), parse_latex(answer)) is expected


@pytest.mark.parametrize(
    ("value", "rounded", "expected"),
    [
        (r"\sqrt{6}", "2.449", True),  # 2.4494897...
        (r"\sqrt{6}", "2.45", True),
        (r"\sqrt{6}", "2.44", False),
        (r"x = \frac{5}{6}", "0.83", True),
        (r"\frac{5}{6}", r"83.3\%", True),
        (r"\frac{5}{6}", r"83.8\%", False),
        ("6", "7", False),
        (r"\frac{5}{6}", r"\frac{6}{7}", False),  # no decimal number
        ("x", "0.83", False),
    ],
)
def test_a_number_and_its_rounding(value, rounded, expected):
    assert is_rounding(parse_latex(value), parse_latex(rounded)) is expected


@pytest.mark.parametrize(
    ("latex", "text"),
    [("064_7", "64 in base 7"), ("6:05", "6:05"), (r"6\text{pm}", "6:00 pm")],
)
def test_what_a_user_reads_of_a_notation(latex, text):
    assert str(parse_latex(latex)) == text
