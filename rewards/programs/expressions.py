"""Expressions of assertions: trees of allowed operations, evaluated within limits and never as source.

`OPERATIONS` is the table of all allowed operations. The parser uses it to compute constants, and `Assertion.holds` to
compute verdicts. The size of a value is checked before and after every operation, so that neither a data set's tests
nor a hostile result can use up the time or the memory of this process.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .wire import PlainIterator

MAX_SIZE = 2**20  # items, characters and 64-bit words of integers in one value
MAX_DEPTH = 100  # nested containers in a value
MAX_BITS = 2**17  # bits of an integer: 39,456 digits


@dataclass(frozen=True)
class CallResult:
    """The result of one call of an assertion."""

    index: int  # the position in `Assertion.calls`


@dataclass(frozen=True)
class Operation:
    """An operation on constants and on results of calls."""

    name: str  # a key of OPERATIONS, "And" or "Or"
    operands: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]


def evaluate(node: Any, values: Sequence[Any]) -> Any:
    """The value of an expression.

    Args:
        node: An `Operation`, a `CallResult` or a constant.
        values: The results of the calls.

    Raises:
        Exception: The error that Python would raise, or an error for a value that is too large or not plain data.
    """
    if isinstance(node, CallResult):
        measure(values[node.index], RESULT_TYPES)
        return values[node.index]
    if not isinstance(node, Operation):
        return PlainIterator(node.items) if isinstance(node, PlainIterator) else node
    if node.name in ("And", "Or"):
        for operand in node.operands:
            value = evaluate(operand, values)
            if bool(value) == (node.name == "Or"):
                break
        return value
    operands = [evaluate(operand, values) for operand in node.operands]
    result = OPERATIONS[node.name](*operands, **{name: evaluate(part, values) for name, part in node.keywords})
    measure(result)
    return result


_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_ITERABLES = (deque, PlainIterator, *map(type, ({}.keys(), {}.values(), {}.items())))
# The types that arguments of calls may have.
PLAIN_TYPES = frozenset({*_TYPES, type(None)})
# The types that values of variables may have.
CONSTANT_TYPES = PLAIN_TYPES | {range, slice, type, deque}
# The types that results of calls may have.
RESULT_TYPES = PLAIN_TYPES | {range, Decimal, Fraction, *_ITERABLES}
# The types that values inside an expression may have.
EXPRESSION_TYPES = RESULT_TYPES | {slice, type}


def measure(value: Any, known: frozenset[type] = EXPRESSION_TYPES) -> int:
    """The size of a value in items, characters and 64-bit words. A part that occurs twice counts twice.

    Args:
        value: The value.
        known: The types that may occur in the value.

    Raises:
        TypeError: Another type occurs in the value.
        ValueError: The value is too large, too deeply nested, or contains an integer that is too large.
    """
    size, level = 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind not in known:
                raise TypeError(f"{kind.__name__} is not plain data")
            if kind is int or kind is Fraction:
                bits = part.bit_length() if kind is int else max(map(int.bit_length, part.as_integer_ratio()))
                size += bits // 64
                if bits > MAX_BITS:
                    raise ValueError(f"an integer has more than {MAX_BITS} bits")
            elif kind in (str, bytes, range):
                size += len(part)
            elif kind in (list, tuple, dict, set, frozenset, *_ITERABLES):
                items = part.items if kind is PlainIterator else part  # reading an iterator would use it up
                _check_length(size + len(below) + len(items))
                below += [*part, *part.values()] if kind is dict else items
        size += len(level)
        _check_length(size)
        if not below:
            return size
        level = below
    raise ValueError(f"a value is nested more than {MAX_DEPTH} deep")


def _check_length(length: int) -> None:
    if length > MAX_SIZE:
        raise ValueError(f"a value has more than {MAX_SIZE} items and characters")


def _multiply(left: Any, right: Any) -> Any:
    for items, times in ((left, right), (right, left)):
        if isinstance(items, (str, bytes, list, tuple)) and isinstance(times, int):
            _check_length(len(items) * times)
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, (int, Fraction)) and isinstance(exponent, int):
        parts = (base,) if isinstance(base, int) else (base.numerator, base.denominator)
        bits = max(part.bit_length() for part in parts)
        if bits * (exponent if isinstance(base, int) else abs(exponent)) > 2 * MAX_BITS:
            raise ValueError("a power is too large")
    return base**exponent


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes)):
        raise TypeError("% does not format text in a test")
    return left % right


def _round(number: Any, ndigits: Any = None) -> Any:
    if ndigits is not None and abs(ndigits) > 1000:  # Python would compute 10 ** abs(ndigits)
        raise ValueError("round has too many digits")
    return round(number, ndigits)


def _sum(numbers: Any, start: Any = 0) -> Any:
    numbers = list(numbers)
    if not all(isinstance(number, (int, float, complex)) for number in numbers):
        raise TypeError("sum takes only numbers in a test")  # adding sequences takes quadratic time
    return sum(numbers, start)


def _str(value: Any = "") -> str:
    return f"{Decimal(value):f}" if type(value) is int else str(value)  # Python limits the digits of str(value)


def _set(items: Any = ()) -> set[Any]:
    items = list(items)
    groups: dict[int, list[Any]] = {}
    for item in items:
        group = groups.setdefault(hash(item), [])
        if item not in group:
            group.append(item)
            if len(group) > 16:  # a set of items with equal hashes takes quadratic time
                raise ValueError("too many items have the same hash")
    return set(items)


def _dict(items: Any = ()) -> dict[Any, Any]:
    pairs = list(items.items() if isinstance(items, dict) else items)
    _set(key for key, _ in pairs)
    return dict(pairs)


def _iterated(function: Callable[..., Iterable[Any]]) -> Callable[..., PlainIterator]:
    """The function, returning an iterator whose size can be measured."""
    return lambda *args, **kwargs: PlainIterator(list(function(*args, **kwargs)))


# The functions that a suite may call, besides those of the solution.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (abs, all, any, chr, isinstance, len, max, min, next, ord, range, sorted)},
    **{kind.__name__: kind for kind in (bool, int, float, complex, list, tuple)},
    **{f.__name__: _iterated(f) for f in (enumerate, reversed, zip)},
    **{f"math.{f.__name__}": f for f in (math.isclose, math.sqrt, math.floor, math.ceil, math.fabs, math.isnan)},
    "collections.deque": deque,
    "dict": _dict,
    "frozenset": lambda items=(): frozenset(_set(items)),
    "iter": lambda items: items if isinstance(items, PlainIterator) else PlainIterator(list(items)),
    "itertools.islice": _iterated(itertools.islice),
    "round": _round,
    "set": _set,
    "str": _str,
    "sum": _sum,
    "type": lambda value: type(value),
}
OPERATIONS = (  # the functions above, and the operators by the names of their nodes in `ast`
    FUNCTIONS
    | {"Add": operator.add, "Sub": operator.sub, "Mult": _multiply, "Div": operator.truediv, "Mod": _modulo}
    | {"FloorDiv": operator.floordiv, "Pow": _power, "USub": operator.neg, "UAdd": operator.pos}
    | {"BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor, "Not": operator.not_}
    | {"Eq": operator.eq, "NotEq": operator.ne, "Is": operator.is_, "IsNot": operator.is_not}
    | {"Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge}
    | {"In": lambda item, items: item in items, "NotIn": lambda item, items: item not in items}
    | {"Subscript": operator.getitem, "Slice": slice, "List": lambda *items: list(items), "Tuple": lambda *items: items}
    | {"Set": lambda *items: set(items), "Dict": lambda *items: dict(zip(items[::2], items[1::2], strict=True))}
)
# The keyword arguments of these functions, except `key`, which takes a function.
KEYWORDS = {"reverse", "default", "ndigits", "start", "rel_tol", "abs_tol"}
# The types and constants that a suite may use.
NAMES = {**{kind.__name__: kind for kind in _TYPES}, "math.pi": math.pi, "math.inf": math.inf, "math.nan": math.nan}
