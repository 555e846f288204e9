"""Encode plain data as JSON, and decode it. sandbox/backends.py sends the source of this file into the box.

The source of runner.py follows in the same text. This file is also imported outside the box. It imports only the
standard library.
"""

import json
from collections import Counter

MAX_DEPTH = 100
# Limit on values with the same hash in one set or dict. Only data made to slow down a set or dict exceeds this limit.
_MAX_COLLISIONS = 100
_EXACT_INT = 2**53  # larger integers are written in hexadecimal, for which Python has no limit on the digits


def encode(value):
    """Write a value of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict as JSON text.

    An instance of a subclass is written as the built-in type. Its own methods are not called.

    Raises:
        TypeError: The value contains another type.
        ValueError: The value is nested deeper than `MAX_DEPTH`.

    >>> decode(encode({(1, 2.5): [True, {"x"}, None]}))
    {(1, 2.5): [True, {'x'}, None]}
    """
    return json.dumps(_tagged(value, MAX_DEPTH))


def decode(text):
    """Read a value that `encode` wrote. The text may be hostile.

    Raises:
        ValueError: `encode` cannot have written the text.
    """
    try:
        return _value(json.loads(text))
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"not plain data: {type(error).__name__}") from None


def _tagged(value, depth):
    if depth == 0:
        raise ValueError(f"plain data nested deeper than {MAX_DEPTH}")
    if value is None or value is True or value is False:
        return value
    kinds = type(value).__mro__  # not isinstance(), which calls methods of the value
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
            items = [_tagged(item, depth - 1) for item in kind.__iter__(value)]
            return items if kind is list else {kind.__name__: items}
    if dict in kinds:
        return {"dict": [[_tagged(k, depth - 1), _tagged(v, depth - 1)] for k, v in dict.items(value)]}
    raise TypeError(f"{type(value).__name__} is not plain data")


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
    if kind == "tuple":
        return tuple(map(_value, content))
    if kind == "dict":
        pairs = [(_value(key), _value(value)) for key, value in content]
        _check_hashes([key for key, _ in pairs])
        return dict(pairs)
    items = [_value(item) for item in content]
    _check_hashes(items)
    return {"set": set, "frozenset": frozenset}[kind](items)


def _check_hashes(items):
    if items and max(Counter(map(hash, items)).values()) > _MAX_COLLISIONS and len(items) > _MAX_COLLISIONS:
        raise ValueError("too many values have the same hash")
