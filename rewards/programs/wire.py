"""Encode plain data as JSON, and decode it. sandbox/backends.py sends the source of this file into the box.

The source of runner.py follows in the same text. This file is also imported outside the box. It imports only the
standard library.
"""

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable

MAX_DEPTH = 100
MAX_ITEMS = 2**20  # items of an iterable that is not plain data, which may be endless
# Limit on values with the same hash in one set or dict. Only data made to slow down a set or dict exceeds this limit.
_MAX_COLLISIONS = 100
_MAX_BITS = 2**17  # of the numerator and the denominator of a fraction
_MAX_DIGITS = 10**4  # of a decimal, and its largest exponent
_EXACT_INT = 2**53  # larger integers are written in hexadecimal, for which Python has no limit on the digits


class PlainIterator:
    """An iterator with the items that another process has read from its own iterator. Equal only to itself."""

    def __init__(self, items):
        self.items = items
        self._left = iter(items)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._left)


def encode(value, iterables=False, subclasses=True):
    """Write a value of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict as JSON text.

    An instance of a subclass is written as the built-in type. Its own methods are not called.

    Args:
        value: The value.
        iterables: Write fractions, decimals and other iterables too. `range`, `deque` and the views of a dict keep
            their types. Another iterable becomes a deque if it has a length, otherwise an `PlainIterator`. Its own
            methods are called.
        subclasses: Write instances of subclasses.

    Raises:
        TypeError: The value contains another type.
        ValueError: The value is nested deeper than `MAX_DEPTH`, or another iterable has more than `MAX_ITEMS` items.

    >>> decode(encode({(1, 2.5): [True, {"x"}, None]}))
    {(1, 2.5): [True, {'x'}, None]}
    >>> list(decode(encode(zip("ab", [1, 2]), iterables=True)))
    [('a', 1), ('b', 2)]
    """
    return json.dumps(_tagged(value, MAX_DEPTH, iterables, subclasses))


def decode(text):
    """Read a value that `encode` wrote. The text may be hostile.

    Raises:
        ValueError: `encode` cannot have written the text.
    """
    try:
        return _value(json.loads(text))
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
        raise ValueError(f"not plain data: {type(error).__name__}") from None


def _tagged(value, depth, iterables, subclasses):
    if depth == 0:
        raise ValueError(f"plain data nested deeper than {MAX_DEPTH}")
    if value is None or value is True or value is False:
        return value
    kinds = type(value).__mro__  # not isinstance(), which calls methods of the value
    if not subclasses and len(kinds) > 2:
        raise TypeError(f"{type(value).__name__} is a subclass")
    if int in kinds:
        number = int.__add__(value, 0)
        return number if -_EXACT_INT < number < _EXACT_INT else {"int": hex(number)}
    if float in kinds:
        return {"float": float.hex(value)}
    if complex in kinds:
        return {"complex": [part.__get__(value).hex() for part in (complex.real, complex.imag)]}
    if str in kinds:
        return str.__str__(value)[:]
    if bytes in kinds:
        return {"bytes": bytes.hex(value)}
    for kind in (list, tuple, set, frozenset):
        if kind in kinds:
            items = [_tagged(item, depth - 1, iterables, subclasses) for item in kind.__iter__(value)]
            return items if kind is list else {kind.__name__: items}
    if dict in kinds:
        pairs = dict.items(value)
        return {"dict": [[_tagged(part, depth - 1, iterables, subclasses) for part in pair] for pair in pairs]}
    if iterables:
        return _tagged_iterable(value, depth)
    raise TypeError(f"{type(value).__name__} is not plain data")


def _tagged_iterable(value, depth):
    name = type(value).__module__, type(value).__name__
    if name == ("fractions", "Fraction"):
        return {"fraction": [_tagged(part, 1, False, True) for part in (value.numerator, value.denominator)]}
    if name == ("decimal", "Decimal"):
        return {"decimal": str(value)}
    if type(value) is range:
        return {"range": [_tagged(number, depth - 1, True, True) for number in (value.start, value.stop, value.step)]}
    kind = "deque" if hasattr(value, "__len__") else "iterator"
    if type(value) in _VIEWS:
        kind = type(value).__name__
    items = [_tagged(item, depth - 1, True, True) for item in itertools.islice(value, MAX_ITEMS + 1)]
    if len(items) > MAX_ITEMS:
        raise ValueError(f"an iterable has more than {MAX_ITEMS} items")
    return {kind: items}


def _value(tagged):
    if not isinstance(tagged, (dict, list)):
        if isinstance(tagged, float):
            raise ValueError("a float is not written in hexadecimal")
        return tagged
    if isinstance(tagged, list):
        return [_value(item) for item in tagged]
    ((kind, content),) = tagged.items()
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float.fromhex(content)
    if kind == "complex":
        real, imaginary = map(float.fromhex, content)
        return complex(real, imaginary)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "range":
        return range(*map(_value, content))
    if kind in ("fraction", "decimal"):
        return _exact_number(kind, content)
    items = [_value(item) for item in content]
    if kind in _ORDERED:
        return _ORDERED[kind](items)
    _check_hashes([key for key, _ in items] if kind in ("dict", "dict_items") else items)
    return _HASHED[kind](items)


def _exact_number(kind, content):
    """A fraction or a finite decimal, within limits, because the process that judges computes with it."""
    from decimal import Decimal  # not at the top: the box, which starts often, reads no such numbers
    from fractions import Fraction

    if kind == "fraction":
        numerator, denominator = map(_value, content)
        if max(numerator.bit_length(), denominator.bit_length()) > _MAX_BITS:
            raise ValueError("a fraction is too large")
        return Fraction(numerator, denominator)
    if len(content) > _MAX_DIGITS:
        raise ValueError("a decimal is too long")
    number = Decimal(content)
    if not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS:
        raise ValueError("a decimal is too large")
    return number


_VIEWS = tuple(map(type, ({}.keys(), {}.values(), {}.items())))
_ORDERED: dict[str, Callable] = {
    "tuple": tuple,
    "deque": deque,
    "iterator": PlainIterator,
    "dict_values": lambda items: dict(enumerate(items)).values(),
}
_HASHED: dict[str, Callable] = {
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_items": lambda items: dict(items).items(),
}


def _check_hashes(items):
    if items and max(Counter(map(hash, items)).values()) > _MAX_COLLISIONS and len(items) > _MAX_COLLISIONS:
        raise ValueError("too many values have the same hash")
