"""Messages between the box of a suite and the box of a solution. The source of this file is sent into both boxes.

A message is plain data, as written by wire.py, other values of the standard library such as dates, and numbers that
stand for other objects of the solution. Such an object never leaves the box of the solution. This file runs after
wire.py, which defines `encode` and `decode`.
"""

# ruff: noqa: F821
# mypy: disable-error-code="name-defined"

import importlib
import os

_OUT, _IN = 3, 4  # descriptors of the channel to the other box

_answers = open(_IN, "rb", closefd=False)  # noqa: SIM115

_PARTS = {  # module and name of a class → the parts that an instance is sent as
    ("builtins", "range"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "slice"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "bytearray"): lambda value: (bytes(value),),
    ("collections", "deque"): lambda value: (list(value), value.maxlen),
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
    ("datetime", "date"): lambda value: (value.isoformat(),),
    ("datetime", "time"): lambda value: (value.isoformat(),),
    ("datetime", "datetime"): lambda value: (value.isoformat(),),
}


def say(text):
    """Write one line to the other box."""
    view = memoryview(text.encode("ascii") + b"\n")
    while view:
        view = view[os.write(_OUT, view) :]


def hear():
    """Read one line from the other box; empty if the conversation is over."""
    return _answers.readline().decode("ascii").rstrip("\n")


def pack(value, number):
    """Write a value as text.

    Args:
        value: Plain data, or lists, tuples and dicts that contain other objects.
        number: Returns plain data that stands for an object, or raises an error.
    """
    try:
        return encode(["data", value])
    except TypeError:
        return encode(_tree(value, number))


def unpack(text, find):
    """Read a value that `pack` wrote. `find` returns the object for what `number` returned."""
    return _value_of(decode(text), find)


def _tree(value, number):
    kind = type(value)
    if kind in (list, tuple):
        return [kind.__name__, [_tree(item, number) for item in value]]
    if kind is dict:
        return ["dict", [[_tree(key, number), _tree(item, number)] for key, item in value.items()]]
    if (kind.__module__, kind.__name__) in _PARTS:
        parts = _PARTS[kind.__module__, kind.__name__](value)
        return [f"{kind.__module__}.{kind.__name__}", [_tree(part, number) for part in parts]]
    try:
        encode(value)
    except TypeError:
        return ["object", number(value)]
    return ["data", value]


def _value_of(tree, find):
    kind, content = tree
    if kind == "data":
        return content
    if kind == "object":
        return find(content)
    if kind == "dict":
        return {_value_of(key, find): _value_of(item, find) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_value_of(item, find) for item in content]
        return items if kind == "list" else tuple(items)
    module, name = kind.split(".")
    if (module, name) not in _PARTS:
        raise ValueError(f"not plain data: {kind}")
    made = getattr(importlib.import_module(module), name)
    parts = [_value_of(part, find) for part in content]
    return made.fromisoformat(*parts) if hasattr(made, "fromisoformat") else made(*parts)
