r"""Parse an answer, and decide whether two answers are equal as mathematics.

Math-verify parses the answers, and compares sets, intervals, matrices, equations and expressions with variables. This
module replaces its comparison of numbers, which rounds: all numbers are exact here, and a decimal is the number that it
spells. Parsing and comparing hostile answers may take forever, so the reward `math` calls these functions in a worker,
with a time limit.
"""

from __future__ import annotations

import re
from typing import Any

from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify.grader import sympy_expr_eq
from math_verify.parser import parse_latex_cached
from sympy import (
    Complement,
    Derivative,
    Equality,
    Expr,
    Float,
    GreaterThan,
    Integral,
    Intersection,
    Interval,
    LessThan,
    Limit,
    MatrixBase,
    Mul,
    Product,
    Rational,
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

DIGITS = 1000  # irrational numbers that agree to this many digits are equal

_PARSER = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
_OR = re.compile(r"\\text\{ ?or ?\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])")
_AND = re.compile(r"\\text\{ ?and ?\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_RELATION = re.compile(rf"=|{_INEQUALITY.pattern}")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_HUNDREDTH = UnevaluatedExpr(Rational(1, 100))
_OPERATIONS = (Sum, Product, Integral, Limit, Derivative)  # their values are left to math-verify

Value = Any  # what the parser returns: a number, an expression, a set, a tuple, a matrix, an equation or an inequality


def parse_latex(latex: str) -> Value:
    r"""The value of LaTeX from `normalise`, with exact numbers.

    Raises:
        Exception: The text is no mathematics.

    >>> parse_latex(r"0.125"), parse_latex(r"x < 1 \text{ or } x \ge 2")
    (1/8, Union(Interval.open(-oo, 1), Interval(2, oo)))
    """
    for separator, combine in ((_OR, Union), (_AND, Intersection)):
        parts = separator.split(latex)
        if len(parts) > 1 and all(map(_RELATION.search, parts)) and any(map(_INEQUALITY.search, parts)):
            return combine(*(_solutions(parse_latex(part)) for part in parts))
    if _PLUS_MINUS.search(latex) and "," not in latex and max(latex.count(r"\pm"), latex.count(r"\mp")) == 1:
        upper, lower = latex.replace(r"\pm", "+"), latex.replace(r"\pm", "-")
        latex = ", ".join((upper.replace(r"\mp", "-"), lower.replace(r"\mp", "+")))
    value = _exact(parse_latex_cached(normalize_latex(latex, _PARSER)))
    return value.args[0] if isinstance(value, FiniteSet) and len(value) == 1 else value


def _exact(value: Value) -> Value:
    """The value with exact numbers. Only constants are evaluated."""
    if isinstance(value, MatrixBase):
        return value.applyfunc(_exact)
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
        return FiniteSet(bound)
    if not relation.lhs.is_Symbol or bound.free_symbols:
        return relation.as_set()  # sympy solves it, which takes up to a second
    below = Interval(-oo, bound, right_open=not isinstance(relation, LessThan))
    above = Interval(bound, oo, left_open=not isinstance(relation, GreaterThan))
    if isinstance(relation, Unequality):
        return Union(below, above)
    return below if isinstance(relation, LessThan | StrictLessThan) else above


def _is_inequality(value: Value) -> bool:
    """Whether a value is an inequality in one variable, or a chain of such inequalities."""
    parts = value._unsorted_args if isinstance(value, And) else (value,)
    return len(value.free_symbols) == 1 and all(
        isinstance(part, Relational) and not isinstance(part, Equality) for part in parts
    )


def _as_sets(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """Inequalities as the sets of their solutions, if both values are inequalities or sets."""
    sets = [value.rhs if isinstance(value, Equality) else value for value in values]  # x in [1, 2] is an equality here
    if not any(map(_is_inequality, sets)) or not all(isinstance(one, Set) or _is_inequality(one) for one in sets):
        return values
    if all(map(_is_inequality, sets)) and sets[0].free_symbols != sets[1].free_symbols:
        return values
    return _solutions(sets[0]), _solutions(sets[1])


def _as_points(values: tuple[Value, Value]) -> tuple[Value, Value]:
    """The equations x = 1, y = 2 as the point (1, 2), with the variables in alphabetical order, next to a point."""
    if not any(isinstance(value, Tuple | Interval) for value in values):
        return values
    first, second = map(_point, values)
    return first, second


def _point(value: Value) -> Value:
    """Equations of different variables as a point; other values as they are."""
    equations = value._unsorted_args if isinstance(value, FiniteSet) else ()
    if not all(isinstance(equation, Equality) and equation.lhs.is_Symbol for equation in equations):
        return value
    sides = {str(equation.lhs): equation.rhs for equation in equations}
    return Tuple(*(sides[name] for name in sorted(sides))) if 1 < len(sides) == len(equations) else value


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
    percentages = _percentage(expected), _percentage(answer)
    if None not in percentages:
        return equal(*percentages)
    if percentages[0] is not None:
        return equal(percentages[0], answer) or equal(percentages[0] / 100, answer)
    if percentages[1] is not None:
        return equal(expected, percentages[1]) or equal(expected, percentages[1] / 100)
    numbers = _constant(expected), _constant(answer)
    if None not in numbers:
        same = _same_number(*numbers)
        if same is not None:
            return same
    pair = (expected, answer)
    if any(isinstance(value, FiniteSet) for value in pair) and any(map(_is_inequality, pair)):
        return False  # the list {2, 5} does not equal 2 < x < 5
    return sympy_expr_eq(*_as_sets(_as_points(pair)), DIGITS, DIGITS)


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
