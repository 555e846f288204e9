r"""Rewriting answers: each kind of spelling, and what must not be rewritten."""

import pytest

from rewards.answers.normalise import is_word, normalise, read_choice, read_decimal_comma, read_letters, with_parameter


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        # decoration
        ("19.", "19"),
        ("**19**", "19"),
        (r"\approx 19", "19"),
        (r"\textcolor{green}{\boldsymbol{19}}", "19"),
        (r"$\displaystyle\left(19\right)$", "(19)"),
        (r"\$19", "19"),
        (r"\text{Total: } 19", "19"),
        (r"\text{The answer is } 19", "19"),
        (r"\color{red}19", "19"),
        (r"{\color{red} 19}", "19"),
        (r"\color{white}19", r"\color{wh{I}te}19"),  # hidden text is no answer
        (r"{\bf 19}", "19"),
        (r"\mathbf 19", "19"),
        (r"\Large{19}", "19"),
        (r"\colorbox{green}{$19$}", "19"),
        (r"\mathtt{19}", "19"),
        (r"19\tag{1}", "19"),
        (r"19 \checkmark", "19"),
        ("*19*", "19"),
        ("***19***", "19"),
        ("# 19", "19"),
        ('"Anna"', r"\text{anna}"),
        ("1{.}9", "1.9"),
        (r"19\text{.}", r"19"),
        (r"1\text{, }9", "1, 9"),
        (r"\langle 1,9\rangle", "( 1,9)"),
        (r"\Rightarrow 19", "19"),
        # characters
        ("8−3√7", r"8-3\sqrt{7}"),
        ("¾π", r"\frac{3}{4}\pi"),
        ("x³ ÷ 4", "x^{3} / 4"),
        ("a₁₂", "a_{12}"),
        ("（2，6］", "(2,6]"),
        ("１９．５％", r"19.5\%"),  # full width
        ("𝑥² ‑ 4𝜋", r"x^{2} - 4\pi"),
        ("✅ 19\u200b ✔", "19"),
        ("19℃", "19"),
        ("19。", "19"),
        # numbers
        (r"73\,400", "73400"),
        ("73 400", "73400"),
        ("73\u202f400", "73400"),
        ("73{,}400.5", "73400.5"),
        ("1,073,400", "1073400"),
        ("73, 400", "73, 400"),  # a list
        ("(73,400)", "(73,400)"),  # a point
        ("73,400,5", "73,400,5"),
        ("73 40", "73, 40"),  # not thousands, and not a sum
        (r"11,\!400", "11400"),
        ("7e-4", r"7\cdot 10^{-4}"),
        ("7e", "7e"),
        ("4 3/5", r"4\frac{3}{5}"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        (r"0.1\bar6", r"\frac{1}{6}"),
        (r"0.\dot{2}\dot{7}", r"\frac{3}{11}"),
        ("0.1(6)", r"\frac{1}{6}"),
        ("1{,}9", "1.9"),  # a decimal comma
        ("0{,}125", "0.125"),
        ("0,07", "0.07"),
        ("0,7", "0,7"),  # a list
        ("(0,07)", "(0,07)"),
        (r"19\text{ million}", r"19\cdot 1000000"),
        ("19 thousand people", r"19\cdot 1000"),
        ("4:6:10", r"\text{2:3:5}"),
        ("4:6", "4:6"),
        ("73_400", "73400"),
        ("73_8", "73_8"),
        ("(73)_8", "73_{8}"),
        (r"73_{\text{eight}}", "73_{8}"),
        ("73 base 8", "73_{8}"),
        (r"73 \text{ base } 8", "73_{8}"),
        (r"73 \text{ (base 8)}", "73_{8}"),
        ("9:40 a.m.", r"9:40\text{am}"),
        (r"9:40 \text{ PM}", r"9:40\text{pm}"),
        (r"\text{9 p.m.}", r"9\text{pm}"),
        ("1.073.400,5", "1073400.5"),
        ("1.073.400", "1073400"),
        ("1.073", "1.073"),
        (r"1\text{,}073\text{,}400", "1073400"),
        ("0.444...", r"\frac{4}{9}"),
        (r"0.2727\ldots", r"\frac{3}{11}"),
        ("2.44...", "2.44"),  # two digits do not repeat
        ("4 to 6", "4:6"),
        ("4(5)", r"4\cdot (5)"),
        (r"\log_4(5)", r"\log_4(5)"),
        # code
        ("x**(n+1)", "x^{n+1}"),
        ("sqrt((1+2)*3)/pi", r"\sqrt{(1+2)*3}/\pi"),
        ("exp(-x)", "e^{-x}"),
        ("abs(x-1) >= 2", r"|x-1| \ge  2"),
        ("(0,1) U (4,inf)", r"(0,1)\cup (4,\infty )"),
        ("x^-12", "x^{-12}"),
        (r"\dfrac1{23}+\frac 45", r"\frac{1}{23}+\frac{4}{5}"),
        (r"2^\frac15", r"2^{\frac{1}{5}}"),
        (r"\nicefrac{1}{5}", r"\frac{1}{5}"),
        (r"{9 \choose 4}", r"\binom{9}{4}"),
        (r"\dbinom94", r"\binom{9}{4}"),
        (r"\log_6 11", r"\log_{6} 11"),
        (r"\log_611", r"\log_{6} 11"),
        ("log_e(11)", r"\ln (11)"),
        (r"\operatorname{arctan} 4", r"\arctan 4"),
        (r"\ln 4 \cdot \ln 5", r"\ln(4)\cdot \ln 5"),
        (r"\sin^2(40^\circ)", r"\sin^{2}(\frac{40\pi}{180})"),
        (r"\frac{x^\circ}{2}", r"\frac{x}{2}"),
        ("log2(9)", r"\log_{2}(9)"),
        ("atan(9)", r"\arctan(9)"),
        ("floor(x/4) + ceil(x)", r"\lfloor x/4\rfloor  + \lceil x\rceil"),
        ("cbrt(9)", r"\sqrt[3]{9}"),
        (r"19 \bmod 4", r"19 \mod 4"),
        ("9 choose 4", r"\binom{9}{4}"),
        ("C_9^4", r"\binom{9}{4}"),
        (r"{}_{9}C_{4}", r"\binom{9}{4}"),
        ("[[1, 9], [4, 0]]", r"\begin{bmatrix}1& 9\\4& 0\end{bmatrix}"),
        (r"\mathbb{R}-\{9\}", r"\mathbb{R}\setminus \{9\}"),
        (r"\text{all real numbers except } 9", r"\mathbb{R}\setminus\{9\}"),
        ("4-9j", "4-9{I}"),
        ("4i-9j", "4{I}-9j"),
        ("]1,9]", "(1,9]"),
        ("[1,4)\\cup]6,9[", "[1,4)\\cup(6,9)"),
        (r"\{x \in \mathbb R \mid x > 4\}", "x > 4"),
        (r"7k\pi, k \in \mathbb{Z}", r"7k\pi"),
        (r"x \in \mathbb Z", r"x \in \mathbb{Z}"),
        ("+/-19", r"\pm 19"),
        # words and units
        (r"\text{19 birds}", "19"),
        ("19 birds per day", "19"),
        (r"19\text{ cm}^2", "19"),
        (r"19\,\mathrm{kg}", "19"),
        ("19cm", "19"),
        ("19°C", "19"),
        (r"19\text{ percent}", r"19\%"),
        (r"19 \text{ or } 20", r"19 \text{ or } 20"),
        (r"19\text{ or 20}", r"19\text{ or 20}"),  # a second answer is no unit
        ("19 apples or none", "19 apples or none"),
        (r"19\text{ cm²}", "19"),
        (r"19\text{ cm^2}", "19"),
        (r"19 \frac{\text{m}}{\text{s}}", "19"),
        ("19km/h", "19"),
        (r"USD 19", "19"),
        (r"19^{\text{th}}", "19"),
        ("19th", "19"),
        ("19 hundred", r"19\cdot 100"),
        ("19 eggs", "19"),  # letters in the order of the alphabet, but no product
        ("19 chips", "19"),
        (r"3.141\,592\,654", "3.141592654"),
        (r"19{\,}400", "19400"),
        ("19˚", "19"),
        ("¹⁄₁₉", r"\frac{1}{19}"),
        (r"\textsc{19}", "19"),
        (r"\textcolor[rgb]{1,0,0}{19}", "19"),
        (r"{\color[HTML]{FF0000} 19}", "19"),
        (r"\mathbf x", "x"),
        ("19 marbles", "19"),  # begins as a month
        (r"19\text{ novels}", "19"),
        ("19 Mary", "19"),  # not in the order of the alphabet, although M stands before a
        (r"\text{19 ants}", "19"),  # in the order of the alphabet, but there are no products in text
        (r"\text{19 xy}", "19 xy"),
        (r"\text{19 x}", "19 x"),
        (r"19\text{ sec}", "19"),
        ("19 sec", "19"),
        (r"19\sec x", r"19\sec x"),
        ("19 Hz", "19"),
        ("19 deg", "19"),
        ("19^o", "19"),
        ("19 Gläser", "19"),
        ("19 книг", "19"),
        ("19本", "19"),
        ("19万", r"19\cdot 10000"),
        ("19或20", r"19 \text{ or } 20"),
        ("19十", "19十"),
        ("答案是19", "19"),
        (r"\text{La respuesta es } 19", "19"),
        ("19 wrong", "19 wrong"),
        ("19 oder alle", "19 oder alle"),
        ("19 doubled", "19 doubled"),
        ("19 sevenths", "19 sevenths"),
        ("km", "km"),  # a product, without a number before it
        (r"\frac{\text{19}}{4}", r"\frac{19}{4}"),
        (r"\text{.19}", "0.19"),
        ("19¢", "19"),
        ("EUR 19", "19"),
        (r"19 \pmod{23}", "19"),
        ("19 squared", "19 squared"),  # words that change the number
        (r"19\text{ plus one}", r"19\text{ plus one}"),
        (r"\text{negative } 19", "-19"),
        ("19m", "19m"),
        ("19 m", "19 m"),
        ("19 abc", "19 abc"),
        (r"19\mathrm{x}", "19x"),
        (r"19\mathrm{t}", "19t"),
        ("No Solution", r"\emptyset"),
        ("the parabola", r"\text{parabola}"),
        ("the z-axis", r"\text{zaxis}"),
        ("c-a", "c-a"),  # a difference, not a word
        ("xyz-y", "xyz-y"),
        (r"\text{infinity}", r"\infty"),
        ("xyz", "xyz"),
        (r"\text{May } 19", r"\text{may19}"),
        (r"\text{May 19}", r"\text{may19}"),
        ("19th of May, 1987", r"\text{may191987}"),
        ("May 19th", r"\text{may19}"),
        ("Sept. 19", r"\text{sep19}"),
        ("19 February", r"\text{feb19}"),
        ("East", r"\text{east}"),
        (r"\text{All real numbers}", r"\mathbb{R}"),
        (r"\{ \}", r"\emptyset"),
        (r"\text{A and E}", "A, E"),
        ("(A), (E)", "A, E"),
        ("A or E", r"\text{aore}"),
        # lines and text around an answer
        (r"\begin{aligned} x &= 4+15 \\ &= 19 \end{aligned}", "x = 4+15= 19"),
        (r"\begin{cases} x &= 1, \\ y &= 9. \end{cases}", "x = 1, y = 9"),
        (r"\begin{aligned} .19 \end{aligned}", "0.19"),
        (
            r"\begin{gathered} \begin{matrix}1&9\\ 8&7\end{matrix} \end{gathered}",
            r"\begin{matrix}1&9\\ 8&7\end{matrix}",
        ),
        (r"\left\{ \begin{array}{l} x=1 \\ y=9 \end{array} \right.", "x=1, y=9"),
        (r"\begin{cases} x & x>1 \\ 9 & x<1 \end{cases}", r"\begin{cases} x & x>1 \\ 9 & x<1 \end{cases}"),
        (r"\begin{smallmatrix}1&9\cr 8&7\end{smallmatrix}", r"\begin{matrix}1&9\\ 8&7\end{matrix}"),
        (r"\text{x = 1 or x = 9}", "x = 1 or x = 9"),
        (r"\text{the answer is 19.}", "19"),
        (r"\text{Final Answer: 19}", "19"),
        ("Answer: 19", "19"),
        ("The final answer is 19", "19"),
        ("The answer is not 19", "not 19"),
        (r"\textbf{$\frac{1}{9}$}", r"\frac{1}{9}"),
        (r"\mathrm{2\sqrt{9}}", r"2\sqrt{9}"),
        (r"\text{not 19}", r"\text{not 19}"),
        (r"\text{The sum is } 19", "19"),
        (r"\text{The sum is not } 19", r"\text{The sum is not } 19"),
        (r"\text{\textbf{Anna}}", r"\text{anna}"),
        ("``Anna''", r"\text{anna}"),
        ("“Anna”", r"\text{anna}"),
        (r"\text{all real numbers } x \le 19", r"x \le 19"),
        (r"\text{all integers } x \le 19", r"\text{all integers } x \le 19"),
        (r"x \text{ such that } x \le 19", r"x \le 19"),
        # names of functions and points
        ("h(t) = 19t", "19t"),
        ("h^{-1}(t) = 19t", "19t"),
        ("h(t) = h(19t)", "h(t) = h(19t)"),
        ("Q(1,9)", "(1,9)"),
        ("C(1,9)", "C(1,9)"),  # may be a binomial coefficient
        (r"(r,\theta) = (1,9)", "(1,9)"),
        ("(1,9)^T", "(1,9)"),
        ("[1;9)", "[1,9)"),
        # numbers and units in words
        (r"\text{nineteen}", "19"),
        ("Nineteen", "19"),
        (r"\text{19 or twenty}", "19 or twenty"),
        (r"\text{forty-nine}", "49"),
        ("Ninety One", "91"),
        (r"\text{negative nine}", "-9"),
        (r"\text{negative}", r"\text{negative}"),
        ("one million", "1000000"),
        ("nineteen hundred", "1900"),
        ("a dozen", "12"),
        ("Forty", "40"),
        ("three hundred forty-two", "342"),
        (r"\text{minus one thousand and five}", "-1005"),
        ("a million two hundred thousand", "1200000"),
        ("two and thirty-three", "2, 33"),
        ("9 dozen", r"9\cdot 12"),
        (r"9 \text{ dozen eggs}", r"9\cdot 12"),
        ("9 lakh", r"9\cdot 100000"),
        (r"9\text{ times ten}", r"9\text{ times ten}"),  # words that change the number
        (r"9\text{ point two}", r"9\text{ point two}"),
        (r"9\text{ halves}", r"9\text{ halves}"),
        (r"9\text{ two-digit numbers}", "9"),
        (r"1 \text{ hour and } 9 \text{ minutes}", r"\text{1h9m}"),
        ("1 hr 9 min", r"\text{1h9m}"),
        ("9 lbs 1 oz", r"\text{9p1o}"),
        ("1h 9m", "1h 9m"),  # may be a product
        ("1 to 9 to 4", r"\text{1:9:4}"),
        (r"1\,011\,001_2", "1011001_2"),
        (r"19 (\text{cm}^2)", "19"),
        (r"19\,\Omega", "19"),
        (r"19\frac{\mathrm{km}}{\mathrm{h}}", "19"),
        ("19 m/s^2", "19"),
        ("19 sq. units", "19"),
        (r"\sqrt{19}cm", r"\sqrt{19}"),
        (r"^{19}C_2", r"\binom{19}{2}"),
        (r"\cos t / \sin t", r"\cos(t)/ \sin t"),
        # calls of code
        ("Rational(1, 9)", r"\frac{1}{9}"),
        ("1 + Fraction(x, 9)", r"1 + \frac{x}{9}"),
        ("pow(1+x, 9)", "(1+x)^{9}"),
        ("comb(19, 2)", r"\binom{19}{2}"),
        ("log(19, 3)", r"\log_{3}(19)"),
        ("log(19)", r"\log (19)"),
        ("factorial(9)", "(9)!"),
        ("Abs(-9)", "|-9|"),
        ("ceiling(1.9)", r"\lceil 1.9\rceil"),
        ("sinh(9)", r"\sinh (9)"),
        ("divisors(9)", "divisors(9)"),
        ("xi(9)", "x{I}(9)"),
        # spaces, old fonts and several texts in a row
        (r"19 \, \Omega", "19"),
        (r"19 \; \quad \text{kg}", "19"),
        (r"1\phantom{8}9", "1, 9"),
        (r"19{\rm cm}", "19"),
        (r"19\rm{cm}^2", "19"),
        (r"19{\rm{ km/h}}", "19"),
        (r"19{\rm x}", "19x"),
        (r"19{\text{ cm}}", "19"),
        (r"19\notag", "19"),
        (r"\text{dark } \text{red}", r"\text{darkred}"),
        (r"\text{red or } \text{blue}", r"\text{redorblue}"),
        (r"\text{Answer: } \text{dark } \text{red}", r"\text{darkred}"),
        (r"\text{ln } 19", r"\ln 19"),
        # lists of words, and circled numbers
        (r"\text{red, blue}", r"\text{red}, \text{blue}"),
        ("Anna, Bert, and Carl", r"\text{anna}, \text{bert}, \text{carl}"),
        ("Anna or Bert", r"\text{annaorbert}"),
        ("x, y", "x, y"),
        ("②⑤", r"\text{circled2and5}"),
        (r"\text{⑤、②}", r"\text{circled2and5}"),
        ("②+⑤", "②+⑤"),
        # a list that goes on
        (r"\{1, 9, \ldots\}", r"\{1, 9, \text{dots}\}"),
        ("1, 9, ...", r"1, 9, \text{dots}"),
        ("1, 2, …, 9", r"1, 2, \text{dots}, 9"),
        # statements with Roman numerals
        ("I, III", r"\text{statementsiandiii}"),
        (r"\text{III and I only}", r"\text{statementsiandiii}"),
        (r"\text{Statements I, II, and IV}", r"\text{statementsiandiiandiv}"),
        ("II", r"\text{statementsii}"),
        ("IV", "IV"),  # a product
        # units in lists
        (r"1\text{ kg}, 9\text{ kg}", "1, 9"),
        (r"(1\text{ m}, 9\text{ s})", "(1, 9)"),
        (r"\sqrt{19} \text{ m}^2, 9", r"\sqrt{19}, 9"),
        (r"1\text{ girl and }9\text{ boys}", r"1\text{ and }9"),
        ("1 girl and 9 boys", "1 and 9"),
        ("1m, 9m", "1m, 9m"),
        (r"1\text{ or 2}, 9", r"1\text{ or 2}, 9"),
        (r"1\text{ squared and }9", r"1\text{squared}\text{ and }9"),
        # a factor before parentheses, and choose
        (r"9\pi (1)^2", r"9\pi\cdot (1)^{2}"),
        (r"19 \text{ choose } 9", r"\binom{19}{9}"),
        (r"{19\choose9}", r"\binom{19}{9}"),
        # degrees
        ("19\\text{°}", "19"),
        (r"1^\circ 9", "1, 9"),
        (r"19^\circ 30'", r"19\frac{1800}{3600}"),
        (r"-1°20'36''", r"-1\frac{1236}{3600}"),
        # unit vectors
        (r"3\mathbf{i} - \frac{1}{9}\mathbf{j}", r"(3, -\frac{1}{9})"),
        (r"$-\hat{\imath} + 9\hat{k}$", "(-1, 0, 9)"),
        (r"\mathbf{\hat{j}} - \mathbf{\hat{i}}", "(-1, 1)"),
        (r"1 + 9\mathbf{i}", "1 + 9{I}"),
        (r"9\mathbf{i} + 1\mathbf{i}", "9{I} + 1{I}"),
        # names of derivatives, binomial coefficients, digits in a base, and parameters
        ("h'(t) = 19t", "19t"),
        (r"\frac{\mathrm{d}y}{\mathrm{d}x} = 19x", "19x"),
        ("y' = 19x", "19x"),
        ("y' = 19y", "y' = 19y"),
        (r"{m+9 \choose 4}", r"\binom{m+9}{4}"),
        (r"\text{1F}_{16}", "1F_{16}"),
        (r"1\text{F}_{16}", "1F_{16}"),
        (r"19m\pi \quad (m \in \mathbb{Z})", r"19m\pi"),
        (r"[m, m+9], m \in \mathbb Z", "[m, m+9]"),
        (r"19m\pi,\ m\text{ is an integer}", r"19m\pi"),
        (r"19m\pi \text{ for all integers } m", r"19m\pi"),
        (r"h(t) = 19t \text{ for all real } t", "19t"),
        (r"x \in R", r"x \in\mathbb{R}"),
        (r"\text{Does not exist}", r"\text{dne}"),
        # vectors, functions in braces, and other spellings
        (r"\vec{a}-2\vec b", "a-2 b"),
        (r"\overrightarrow{AB}", r"\overrightarrow{AB}"),
        (r"{\cos}^2 t", r"\cos ^{2} t"),
        (r"{\cos^{2}} t", r"\cos^{2}  t"),
        (r"x \not= 9", r"x \ne 9"),
        (r"\max\{a, b\}", r"\max(a, b)"),
        (r"x \equiv 9\ (\mathrm{mod}\ 19)", r"x \equiv 9"),
        ("C(9,4)", r"\binom{9}{4}"),
        ("9C4", r"\binom{9}{4}"),
        ("C(4,9)", "C(4,9)"),  # a point
        # a font after a command
        (r"a\cdot\mathbf{b}", r"a\cdot b"),
        (r"e^{\pi\mathrm{i}}", r"e^{\pi {I}}"),
        # the imaginary unit
        (r"3-\mathrm{i}", "3-{I}"),
        (r"\sin 2i + \pi", r"\sin 2{I} + \pi"),
        (r"\sum_{i=1}^{9} i", r"\sum_{i=1}^{9} i"),
        ("x_1 + 2i", "x_1 + 2{I}"),
    ],
)
def test_the_latex_of_an_answer(text, latex):
    assert normalise(text) == latex


@pytest.mark.parametrize("text", ["57", r"\frac{3}{4}", r"3\sqrt{2}", "x^{2}+1", r"\{1,2\}", "(3,4]", "5!", "2:3", ""])
def test_clean_latex_stays_as_it_is(text):
    assert normalise(text) == text


@pytest.mark.parametrize(
    "text", ["{" * 400, "(" * 400, r"\frac" * 80, "^(" * 200, "sqrt(" * 80, r"\text{" * 60, "1 " * 200]
)
def test_text_without_an_end_is_rewritten_without_an_error(text):
    assert isinstance(normalise(text), str)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("D", ("D", "")),
        ("(D)", ("D", "")),
        (r"\textbf{(D)}\ 14", ("D", "14")),
        ("D. the last", ("D", "the last")),
        ("D – the last", ("D", "the last")),
        ("Option D", ("D", "")),
        ("d", ("d", "")),
        ("The correct answer is D", ("D", "")),
        (r"\text{The best option is (D)}", ("D", "")),
        ("The answer is D: the last", ("D", "the last")),
        ("The answer is D or E", None),
        ("The answer is not D", None),
        ("D, E", None),
        ("(D) and (E)", None),
        ("(A)(B)", None),
        ("D - 1", None),
        ("(A) + 1", None),
        ("14", None),
        (r"\sqrt{D}", None),  # no letter of a choice
        (r"\overline{D}", None),
        (r"\mathbb{D}", None),
        ("D*", None),
    ],
)
def test_the_letter_of_a_choice(text, choice):
    assert read_choice(text) == choice


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("B, D", ({"B", "D"}, False)),
        (r"B \& D", ({"B", "D"}, False)),
        ("BD", ({"B", "D"}, True)),
        ("DB", None),
        ("B", None),
        ("B or D", None),
        ("BX", None),
    ],
)
def test_the_letters_of_several_choices(text, letters):
    assert read_letters(text) == letters


@pytest.mark.parametrize(
    ("text", "with_point"),
    [
        ("7,25", "7.25"),
        ("-0,125 m", "-0.125 m"),
        ("7, 25", "7, 25"),
        ("7,250", "7,250"),
        ("7,2,5", "7,2,5"),
        ("(7,25)", "(7,25)"),
        ("7.2,5", "7.2,5"),
    ],
)
def test_a_comma_that_may_be_a_decimal_comma(text, with_point):
    assert read_decimal_comma(text) == with_point


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        (r"9+2n\pi, n \in \mathbb{Z}", r"9+2m\pi, m \in \mathbb{Z}"),
        (r"9+2n\pi \text{ for integer } n", r"9+2m\pi \text{ for integer } m"),
        (r"9+2n\pi+m, n \in \mathbb{Z}", r"9+2n\pi+m, n \in \mathbb{Z}"),  # two letters stay two
        (r"9+2n\pi", r"9+2m\pi"),
        (r"9+2x\pi", r"9+2x\pi"),  # a variable
        (r"9+2n\theta", r"9+2n\theta"),
    ],
)
def test_the_parameter_of_the_reference_answer(text, renamed):
    assert with_parameter(text, r"9+2m\pi, m \in ℤ") == renamed


@pytest.mark.parametrize("letters", ["metres", "feet", "km", "oz", "cells", "film", "mph", "gyms", "kWh", "McDonald"])
def test_words(letters):
    assert is_word(letters)


@pytest.mark.parametrize("letters", ["x", "ab", "abcd", "wxyz", "xxy", "mod", "and", "mgh", "nRT", "kxy"])
def test_no_words(letters):
    assert not is_word(letters)
