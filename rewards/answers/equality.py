r"""Parse an answer, and decide whether two answers are equal as mathematics.

Math-verify parses the answers, and compares sets, intervals, matrices, equations and expressions with variables. This
module replaces its comparison of numbers, which rounds: all numbers are exact here, and a decimal is the number that it
spells. Parsing and comparing hostile answers may take forever, so the reward `math` calls these functions in a worker,
with a time limit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify.grader import sympy_expr_eq
from math_verify.parser import parse_latex_cached
from sympy import (
    Abs,
    Complement,
    Derivative,
    Equality,
    Expr,
    Float,
    GreaterThan,
    Integer,
    Integral,
    Intersection,
    Interval,
    LessThan,
    Limit,
    MatrixBase,
    Mul,
    Product,
    Rational,
    S,
    Set,
    StrictLessThan,
    Sum,
    Tuple,
    Unequality,
    UnevaluatedExpr,
    Union,
    nan,
    oo,
    zoo,
)
from sympy.core.relational import Relational

from .normalise import is_word

DIGITS = 1000  # irrational numbers that agree to this many digits are equal

_PARSER = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
_OR = re.compile(r"\\text\{ ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])")
_OR_OF_SYSTEMS = re.compile(rf";|{_OR.pattern}")
_AND = re.compile(r"\\text\{ ?and ?\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])")
_LIST = re.compile(rf"[,;]|{_OR.pattern}|{_AND.pattern}")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_SOLUTIONS = re.compile(rf"{_INEQUALITY.pattern}|\\in(?![A-Za-z])")
_RELATION = re.compile(rf"=|{_SOLUTIONS.pattern}")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_BRACKET = re.compile(r"[(\[]|\\\{|&")
_NO_PARENTHESIS = re.compile(r"\[|\\\{|&")
_FUNCTION = re.compile(r"(?<![A-Za-z\\{])((?=[A-Za-z]*[aeiou])[A-Za-z]{4,}|gcd|lcm|max|min|sum) ?\(")
_IN_BASE = re.compile(r"([0-9A-F]*[0-9][0-9A-F]*(?=_)|[A-F]{2,}(?=_ ?\{? ?1[1-6]\b))_ ?\{? ?(\d{1,2}) ?\}?")
_PRIME = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|([A-Za-z]) ?(?:('+)(?!_)|\^ ?\{? ?((?:\\prime ?)+)\}?)")
_CLOCK = re.compile(r"(\d{1,2})(?: ?: ?([0-5]\d))?(?:\\text\{([ap]m)\})?")
_HUNDREDTH = UnevaluatedExpr(Rational(1, 100))
_OPERATIONS = (Sum, Product, Integral, Limit, Derivative)  # their values are left to math-verify

# what the parser returns: a number, an expression, a set, a tuple, a matrix, an equation, an inequality, or a notation
Value = Any


@dataclass(frozen=True)
class InBase:
    """A number in the base that is written with it, such as 52_8. Next to a number without a base, the base is ignored.

    Args:
        digits: The digits without leading zeros.
        base: The base, written in base 10.
    """

    digits: str
    base: int

    def plain(self) -> Value:
        """The value of the digits without the base."""
        return parse_latex(self.digits)

    def __str__(self) -> str:
        return f"{self.digits} in base {self.base}"


@dataclass(frozen=True)
class Clock:
    """A time of day, or the ratio that has the same spelling, such as 3:10.

    Args:
        hour: The hour.
        minute: The minute; None in a spelling such as 3 p.m.
        half: `am`, `pm`, or nothing if the text does not say it.
    """

    hour: int
    minute: int | None
    half: str

    def plain(self) -> Value:
        """The ratio, or the hour if there are no minutes; None for what is no ratio, such as 3:05 and 3:10 p.m."""
        if not self.minute:
            return Integer(self.hour)
        return Rational(self.hour, self.minute) if self.minute >= 10 and not self.half else None

    @property
    def is_reduced(self) -> bool:
        """Whether the ratio is in lowest terms. A reference answer that is not is a time."""
        return not self.minute or math.gcd(self.hour, self.minute) == 1

    def is_same_time(self, other: Clock) -> bool:
        """Whether both are the same time of day. A time without `am` or `pm` may be both next to one that has it."""
        if not self.half and not other.half:
            return self == other
        return not self._minutes().isdisjoint(other._minutes())

    def _minutes(self) -> set[int]:
        halves = {"am": [0], "pm": [12]}.get(self.half, [0, 12] if 1 <= self.hour <= 12 else [self.hour // 12 * 12])
        return {60 * (self.hour % 12 + half) + (self.minute or 0) for half in halves}

    def __str__(self) -> str:
        return f"{self.hour}:{self.minute or 0:02} {self.half}".strip()


def parse_latex(latex: str) -> Value:
    r"""The value of LaTeX from `normalise`, with exact numbers.

    Raises:
        Exception: The text is no mathematics.

    >>> parse_latex(r"0.125"), parse_latex(r"x < 1 \text{ or } x \ge 2")
    (1/8, Union(Interval.open(-oo, 1), Interval(2, oo)))
    """
    if any(map(is_word, _FUNCTION.findall(latex))):
        raise ValueError("an unknown function, whose name would be read as a product of letters")
    if len(solutions := _OR_OF_SYSTEMS.split(latex)) > 1 and all("," in part and "=" in part for part in solutions):
        points = [_point(parse_latex(part)) for part in solutions]
        if all(isinstance(point, Tuple) for point in points):
            return FiniteSet(*points)
    for separator, combine in ((_OR, Union), (_AND, Intersection)):
        parts = separator.split(latex)
        if len(parts) > 1 and all(map(_RELATION.search, parts)) and any(map(_SOLUTIONS.search, parts)):
            values = list(map(parse_latex, parts))
            if len(set().union(*(value.free_symbols for value in values))) < 2:
                return combine(*map(_stated_solutions, values))
    parts = latex.split(",")
    if len(parts) > 1 and all(map(_INEQUALITY.search, parts)) and len(set(_LETTER.findall(latex))) == 1:
        solutions = [_stated_solutions(parse_latex(part)) for part in parts]
        both = Intersection(*solutions)
        return Union(*solutions) if both.is_empty else both  # x < 1, x > 2 means one or the other
    if match := _IN_BASE.fullmatch(latex):
        return InBase(match[1].lstrip("0") or "0", int(match[2]))
    if (match := _CLOCK.fullmatch(latex)) and (match[2] or match[3]):
        return Clock(int(match[1]), int(match[2]) if match[2] else None, match[3] or "")
    if latex.count("=") > 1 and not _LIST.search(latex) and not _INEQUALITY.search(latex):
        chain = _chain(split(latex, "="))
        if chain is not None:
            return chain
    if r"\%" in latex and not _BRACKET.search(latex):
        parts = [part for part in _LIST.split(latex) if part.strip()]
        if len(parts) > 1:
            return FiniteSet(*map(parse_latex, parts))
    if latex.endswith(r"\%"):
        return Mul(parse_latex(latex[:-2]), _HUNDREDTH, evaluate=False)
    if _PLUS_MINUS.search(latex) and not _NO_PARENTHESIS.search(latex):
        latex = ", ".join(both for part in split(latex, ",") for both in _both_signs(part))
    latex = _PRIME.sub(_with_index, latex)
    value = _exact(parse_latex_cached(normalize_latex(latex, _PARSER)))
    has_one_element = isinstance(value, FiniteSet) and len(value) == 1 and value.args[0] is not S.EmptySet
    return value.args[0] if has_one_element else value


def _with_index(match: re.Match[str]) -> str:
    """A letter with primes as a letter with an index, because the parser ignores primes."""
    primes = len(match[2] or "") + (match[3] or "").count("p")
    return f"{match[1]}_{{{'prime' * primes}}}" if primes else match[0]


def split(latex: str, separator: str) -> list[str]:
    """Split at each separator that is outside of braces, brackets and parentheses."""
    parts, depth = [""], 0
    for character in latex:
        depth += (character in "{([") - (character in "})]")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _both_signs(latex: str) -> list[str]:
    r"""The two values of a part with one `\pm` or `\mp`, or with one of each; any other part as it is.

    In a point, each `\pm` has a sign of its own: `(\pm 1, \pm 2)` are four points. A point may have three of them.
    """
    coordinates = split(latex.strip()[1:-1], ",") if latex.strip().startswith("(") else []
    if len(coordinates) > 1 and latex.count(r"\pm") <= 3 and r"\mp" not in latex:
        return [f"({','.join(point)})" for point in product(*map(_both_signs, coordinates))]
    if max(latex.count(r"\pm"), latex.count(r"\mp")) != 1:
        return [latex]
    upper, lower = latex.replace(r"\pm", "+"), latex.replace(r"\pm", "-")
    return [upper.replace(r"\mp", "-"), lower.replace(r"\mp", "+")]


def _chain(sides: list[str]) -> Value | None:
    """The value of a chain of equations, such as `1 + 2 = 3 = 6/2` or `x = 1 + 2 = 3`.

    Args:
        sides: What stands between the equals signs.

    Returns:
        The last number. If the first side is a name, the result is the equation of the name and the last number.
        Each number is compared with the first one. If a number is neither equal to it nor a rounding of it, the result
        is the equation of these two. This equation is wrong, so it equals no answer. The result is None if a side after
        the first is not a number, or if there are only percentages.
    """
    values = list(map(parse_latex, sides[1:]))
    if any(_constant(value) is None and _percentage(value) is None for value in values):
        return None
    try:
        name = parse_latex(sides[0])
    except Exception:  # a name that cannot be read, such as P(A \mid B)
        name = None
    has_name = _constant(name) is None and _percentage(name) is None
    numbers = values if has_name else [name, *values]
    first = next((number for number in map(_constant, numbers) if number is not None), None)
    if first is None:
        return None
    for number in numbers:
        is_other = _percentage(number) is not None or _same_number(first, _constant(number)) is False
        if is_other and not is_rounding(first, number):
            return Equality(first, number, evaluate=False)  # a contradiction
    return Equality(name, values[-1], evaluate=False) if has_name and isinstance(name, Expr) else values[-1]


def _exact(value: Value) -> Value:
    """The value with exact numbers. Only constants are evaluated."""
    if isinstance(value, MatrixBase):
        return _exact(value[0]) if value.shape == (1, 1) else value.applyfunc(_exact)
    if isinstance(value, FiniteSet | And):
        return type(value)(*map(_exact, value._unsorted_args))
    if isinstance(value, Relational):
        return value.func(*map(_exact, value.args), evaluate=False)
    if isinstance(value, Interval):
        return Interval(_exact(value.start), _exact(value.end), value.left_open, value.right_open)
    if isinstance(value, Tuple | Union | Intersection | Complement):
        return value.func(*map(_exact, value.args))
    if not isinstance(value, Expr):
        return value
    value = value.xreplace({number: Rational(str(number)) for number in value.atoms(Float)})
    constant = _constant(value)
    return constant if isinstance(constant, Rational) else value


def _solutions(relation: Value) -> Set:
    """The solutions of an inequality in one variable, or of a chain such as 1 < x < 2; a set is its own solutions."""
    if isinstance(relation, Set):
        return relation
    if isinstance(relation, And):
        return Intersection(*map(_solutions, relation._unsorted_args))
    if relation.rhs.is_Symbol:
        relation = relation.reversed
    bound = relation.rhs
    if isinstance(relation, Equality):
        return bound if isinstance(bound, Set) else FiniteSet(bound)
    if not relation.lhs.is_Symbol or bound.free_symbols:
        return relation.as_set()  # sympy solves it, which takes up to a second
    below = Interval(-oo, bound, right_open=not isinstance(relation, LessThan))
    above = Interval(bound, oo, left_open=not isinstance(relation, GreaterThan))
    if isinstance(relation, Unequality):
        return Union(below, above)
    return below if isinstance(relation, LessThan | StrictLessThan) else above


def _stated_solutions(relation: Value) -> Set:
    """The solutions of an inequality that states them. Raises `ValueError` for one that is still to be solved."""
    if _is_unsolved(relation):
        raise ValueError("an inequality that is still to be solved")
    return _solutions(relation)


def _is_unsolved(value: Value) -> bool:
    """Whether a value has a relation in one variable that does not state its values, such as 2x = 6 and |x - 2| < 5."""
    parts = value._unsorted_args if isinstance(value, And | FiniteSet) else (value,)
    return any(isinstance(part, Relational) and not _states_values(part) for part in parts)


def _states_values(relation: Relational) -> bool:
    names = (side.args[0] if isinstance(side, Abs) else side for side in relation.args)
    has_set = any(isinstance(side, Set) for side in relation.args)
    return has_set or len(relation.free_symbols) != 1 or all(name.is_Symbol or not name.free_symbols for name in names)


def _is_inequality(value: Value) -> bool:
    """Whether a value is an inequality in one variable, or a chain of such inequalities."""
    parts = value._unsorted_args if isinstance(value, And) else (value,)
    return len(value.free_symbols) == 1 and all(
        isinstance(part, Relational) and not isinstance(part, Equality) for part in parts
    )


def _is_list(value: Value) -> bool:
    r"""Whether a value is a list, or an equation of a name and a list: the parser reads `x \in \{2, 5\}` as one."""
    return isinstance(value.rhs if isinstance(value, Equality) else value, FiniteSet)


def _as_sets(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """Inequalities as the sets of their solutions, if both values are inequalities or sets."""
    sets = [value.rhs if isinstance(value, Equality) else value for value in values]  # x in [1, 2] is an equality here
    if isinstance(sets[0], Union) and isinstance(sets[1], FiniteSet):  # (0, 1) or (2, 3)
        parts = sets[1]._unsorted_args
        if all(isinstance(part, Interval) for part in parts):
            return sets[0], Union(*parts)
    if not any(map(_is_inequality, sets)) or not all(isinstance(one, Set) or _is_inequality(one) for one in sets):
        return values
    if all(map(_is_inequality, sets)) and sets[0].free_symbols != sets[1].free_symbols:
        return values
    return _solutions(sets[0]), _solutions(sets[1])


def _as_points(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """Equations and columns as points, next to a point: x = 1, y = 2 is (1, 2), in the order of the alphabet."""
    if not any(isinstance(value, Tuple | Interval) for value in values):
        return values
    if any(isinstance(value, MatrixBase) and value.cols == 1 for value in values):
        first, second = (Tuple(*value) if isinstance(value, MatrixBase) else _as_tuple(value) for value in values)
        return first, second
    first, second = map(_point, values)
    return first, second


def _as_equations(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """Chains of names, such as `a = b = 2`, as lists of equations, unless one value is an expression."""
    if any(isinstance(value, Expr) for value in values):
        return values
    first, second = map(_without_chains, values)
    return first, second


def _without_chains(value: Value) -> Value:
    """A chain of names as a list of equations, also inside a list; other values as they are."""
    parts = value._unsorted_args if isinstance(value, FiniteSet) else [value]
    equations = [equation for part in parts for equation in _chain_of_names(part)]
    return FiniteSet(*equations) if len(equations) > len(parts) else value


def _chain_of_names(value: Value) -> list[Value]:
    equations = value._unsorted_args if isinstance(value, And) else []
    if not equations or not all(isinstance(one, Equality) and one.lhs.is_Symbol for one in equations):
        return [value]
    return [Equality(one.lhs, equations[-1].rhs, evaluate=False) for one in equations]


def _as_roots(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """The values of one variable in two lists, such as `x = 1, x = 2` and `x_1 = 2, x_2 = 1`.

    If both lists have indices, the indices count, and the lists stay as they are.
    """
    names = [{str(equation.lhs).partition("_")[0::2] for equation in _equations(value)} for value in values]
    letters = {letter for name in names for letter, _ in name}
    if not all(names) or len(letters) != 1 or min(map(len, names)) != 1:
        return values
    first, second = (FiniteSet(*(equation.rhs for equation in _equations(value))) for value in values)
    return first, second


def _equations(value: Value) -> tuple[Equality, ...]:
    """The equations of a list that give the value of a variable; none if the list has something else."""
    parts = tuple(value._unsorted_args) if isinstance(value, FiniteSet) else ()
    return parts if all(isinstance(part, Equality) and part.lhs.is_Symbol for part in parts) else ()


def _as_tuple(value: Value) -> Value:
    """A point of two coordinates as a tuple: the parser reads it as an open interval."""
    is_point = isinstance(value, Interval) and value.left_open and value.right_open
    return Tuple(value.start, value.end) if is_point else value


def _point(value: Value) -> Value:
    """Equations of different variables as a point; other values as they are."""
    equations = _equations(value)
    sides = {str(equation.lhs): equation.rhs for equation in equations}
    return Tuple(*(sides[name] for name in sorted(sides))) if 1 < len(sides) == len(equations) else value


def _is_contradiction(value: Value) -> bool:
    """Whether a value is an equation of numbers that are neither equal nor a number and its rounding, such as 9 = 8."""
    equations = [
        part for part in (value._unsorted_args if isinstance(value, And) else (value,)) if isinstance(part, Equality)
    ]
    is_chain = all(one.rhs == next_one.lhs for one, next_one in pairwise(equations))  # 9 = x = 8
    for sides in [[side for one in equations for side in one.args]] if is_chain else [one.args for one in equations]:
        numbers = [number for number in map(_constant, sides) if number is not None]
        if any(not _same_number(numbers[0], other) and not is_rounding(numbers[0], other) for other in numbers[1:]):
            return True
    return False


def is_rounding(value: Value, rounded: Value, unit: Value = 1) -> bool:
    """Whether `rounded` is a decimal number or a percentage, and `value` or the last side of it becomes it by rounding.

    The value is multiplied by `unit` first.

    >>> is_rounding(parse_latex(r"\\frac{2}{3}"), parse_latex("0.67")), is_rounding(parse_latex("9"), parse_latex("8"))
    (True, False)
    """
    value = _constant(value.rhs if isinstance(value, Equality) else value)
    percentage = _percentage(rounded)
    if percentage is not None:
        return value is not None and (is_rounding(100 * value, percentage) or is_rounding(value, percentage))
    rounded = _constant(rounded)
    if value is None or not isinstance(rounded, Rational):
        return False
    digits = next((digits for digits in range(20) if 10**digits % rounded.q == 0), None)
    return digits is not None and bool(abs((value * unit - rounded).evalf(30)) * 10**digits * 2 <= 1)


def _percentage(value: Value) -> Value | None:
    """The number before the percent sign; None for other values."""
    if isinstance(value, Mul) and len(value.args) == 2 and value.args[1] == _HUNDREDTH:
        return value.args[0]
    return None


def _constant(value: Value) -> Expr | None:
    """The evaluated number; None for values that are no number, percentages, and numbers that cannot be evaluated."""
    if not isinstance(value, Expr) or value.free_symbols or value.has(*_OPERATIONS) or _percentage(value) is not None:
        return None
    value = value.doit()
    return value if value.is_number else None


def equal(expected: Value, answer: Value) -> bool:
    """Whether the answer equals the reference answer.

    A percentage equals the number without the sign, and the fraction: 9% equals 9 and 0.09.

    >>> equal(parse_latex("(1,2)"), parse_latex("1<x<2")), equal(parse_latex(r"\\frac13"), parse_latex("0.33333333"))
    (True, False)
    """
    if isinstance(expected, Clock) and not isinstance(answer, Clock) and not expected.is_reduced:
        return False
    for notation, is_same in ((InBase, InBase.__eq__), (Clock, Clock.is_same_time)):
        has_notation = isinstance(expected, notation), isinstance(answer, notation)
        if all(has_notation):
            return is_same(expected, answer)
        if any(has_notation):
            values = [
                value.plain() if has else value for value, has in zip((expected, answer), has_notation, strict=True)
            ]
            return None not in values and equal(*values)
    if _is_contradiction(answer):
        return False
    if isinstance(expected, Equality) and None not in (_constant(expected.lhs), _constant(expected.rhs)):
        expected = expected.rhs  # 5! = 120
    if isinstance(answer, Equality) and answer.rhs.is_Symbol and _constant(answer.lhs) is not None:
        answer = answer.reversed  # 8 = x
    percentages = _percentage(expected), _percentage(answer)
    if None not in percentages:
        return equal(*percentages)
    if percentages[0] is not None:
        return equal(percentages[0], answer) or equal(percentages[0] / 100, answer)
    if percentages[1] is not None:
        return equal(expected, percentages[1]) or equal(expected, percentages[1] / 100)
    if isinstance(answer, FiniteSet) and any(_percentage(part) is not None for part in answer._unsorted_args):
        return _is_same_list(expected, answer)
    if isinstance(expected, FiniteSet) and any(_percentage(part) is not None for part in expected._unsorted_args):
        return isinstance(answer, FiniteSet) and _is_same_list(expected, answer)
    numbers = _constant(expected), _constant(answer)
    if None not in numbers:
        same = _same_number(*numbers)
        if same is not None:
            return same
    pair = (expected, answer)
    if any(map(_is_list, pair)) and any(map(_is_inequality, pair)):
        return False  # the list {2, 5} does not equal 2 < x < 5
    if isinstance(expected, Relational | And | Set) and _is_unsolved(answer) and not _is_unsolved(expected):
        return False  # sympy would solve a problem that the answer repeats
    return sympy_expr_eq(*_as_sets(_as_roots(_as_points(_as_equations(pair)))), DIGITS, DIGITS)


def _is_same_list(expected: Value, answer: FiniteSet) -> bool:
    """Whether each value of a list, some of them percentages, equals one of the other list, in both directions."""
    values = expected._unsorted_args if isinstance(expected, FiniteSet) else (expected,)
    return all(any(equal(value, part) for value in values) for part in answer._unsorted_args) and all(
        any(equal(value, part) for part in answer._unsorted_args) for value in values
    )


def _same_number(a: Expr, b: Expr) -> bool | None:
    """Whether two constants are equal; None if they cannot be evaluated to enough digits."""
    if a.has(nan, zoo) or b.has(nan, zoo):
        return False
    if a.is_infinite or b.is_infinite or (a.is_Rational and b.is_Rational):
        return bool(a == b)
    difference = (a - b).evalf(2, maxn=DIGITS)
    parts = difference.as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    # a precision of one bit means that sympy knows no digit of the number
    return all(part == 0 or getattr(part, "_prec", 0) == 1 for part in parts)
