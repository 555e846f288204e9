"""Messages between the box of a suite and the box of a solution. The source of this file is sent into both boxes.

A message is plain data, as written by wire.py, other values of the standard library such as dates, named tuples, and
numbers that stand for other objects of the solution. Such an object never leaves the box of the solution. Each box has
a copy of an instance of a class that the suite defines, such as `ListNode`, and a message brings it up to date. This
file runs after wire.py, which defines `encode` and `decode`.
"""

# ruff: noqa: F821
# mypy: disable-error-code="name-defined"

import collections
import functools
import importlib
import os

_OUT, _IN = 3, 4  # descriptors of the channel to the other box

_answers = open(_IN, "rb", closefd=False)  # noqa: SIM115

_DATA = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset)
_UNCHANGING = (str, bytes, int, float, complex, tuple, frozenset)
_MAPPINGS = (dict, collections.Counter, collections.OrderedDict, collections.defaultdict)
CHANGEABLE = (list, bytearray, set, collections.deque, *_MAPPINGS)
_ITEMS = {kind.__name__: kind for kind in (list, tuple, set, frozenset)}
_PARTS = {  # module and name of a class → the parts that an instance is sent as
    ("builtins", "range"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "slice"): lambda value: (value.start, value.stop, value.step),
    ("builtins", "bytearray"): lambda value: (bytes(value),),
    ("collections", "deque"): lambda value: (list(value), value.maxlen),
    ("collections", "Counter"): lambda value: (dict(value),),
    ("collections", "OrderedDict"): lambda value: (list(value.items()),),
    ("collections", "defaultdict"): lambda value: (value.default_factory, dict(value)),
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
        return encode(["data", value], subclasses=False)
    except TypeError:
        return encode(_tree(value, number))


def unpack(text, find):
    """Read a value that `pack` wrote. `find` returns the object for what `number` returned."""
    return _value_of(decode(text), find)


def refill(container, new):
    """Give a container the items of another one, if it is of the same type."""
    if type(container) is not type(new):
        return
    if type(container) in (list, bytearray):
        container[:] = new
    elif type(container) in CHANGEABLE:
        container.clear()
        container.extend(new) if type(container) is collections.deque else container.update(new)


class Copies:
    """The instances of the suite's own classes. Each box has a copy of an instance under the same key.

    Args:
        names: The names of this box, with the classes.
        allowed: The names of the classes.
        sign: The sign of the keys that this box gives.
    """

    def __init__(self, names, allowed, sign):
        self.names, self.allowed, self.sign = names, allowed, sign
        self.by_key, self.keys = {}, {}
        self.pending = []  # keys of the instances that the next message must contain
        self.is_pending = set()

    def key(self, value):
        """The key of an instance, which is then part of the next message; None for any other value."""
        name = type(value).__name__
        if name not in self.allowed or dict.get(self.names, name) is not type(value):
            return None
        if id(value) not in self.keys:
            self._add(self.sign * (len(self.by_key) + 1), value)
        self.send(self.keys[id(value)])
        return self.keys[id(value)]

    def send(self, key):
        """Make an instance part of the next message."""
        if key not in self.is_pending:
            self.is_pending.add(key)
            self.pending.append(key)

    def _add(self, key, value):
        self.by_key[key], self.keys[id(value)] = value, key

    def write(self, text, number):
        """A packed value, and the attributes of all instances that it leads to."""
        rows = {}
        for key in self.pending:  # packing the attributes of one instance may append others
            value = self.by_key[key]
            names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
            state = {name: getattr(value, name) for name in names if hasattr(value, name)}
            rows[key] = [type(value).__name__, pack(state, number)]
        self.pending, self.is_pending = [], set()
        return f"{text}\t{encode(rows)}" if rows else text

    def read(self, text, find):
        """The packed value that `write` was given, and the keys of the instances. They get their new attributes."""
        text, _, rows = text.partition("\t")
        rows = decode(rows) if rows else {}
        for key, (name, _) in rows.items():
            if name not in self.allowed:
                raise ValueError(f"the suite has no class {name}")
            if key not in self.by_key:
                self._add(key, object.__new__(self.names[name]))
        for key, (_, state) in rows.items():
            value = self.by_key[key]
            getattr(value, "__dict__", {}).clear()
            for name, attribute in unpack(state, find).items():
                object.__setattr__(value, name, attribute)  # the class may be frozen
        return text, list(rows)


def _tree(value, number):
    kind = type(value)
    if _is_plain(value, subclasses=False):
        return ["data", value]
    if kind in _ITEMS.values():
        return [kind.__name__, [_tree(item, number) for item in value]]
    if kind is dict:
        return ["dict", [[_tree(key, number), _tree(item, number)] for key, item in value.items()]]
    if (kind.__module__, kind.__name__) in _PARTS:
        parts = _PARTS[kind.__module__, kind.__name__](value)
        return [f"{kind.__module__}.{kind.__name__}", [_tree(part, number) for part in parts]]
    is_named = tuple in kind.__mro__ and hasattr(kind, "_fields")
    if kind.__module__ == module.__name__ and (is_named or hasattr(kind, "__members__")):
        return ["object", number(value)]  # a named tuple of the solution, or a member of its enumeration
    if is_named:
        return ["named", [kind.__name__, kind._fields, [_tree(item, number) for item in value]]]
    return ["data", value] if _is_plain(value, subclasses=True) else ["object", number(value)]


def _is_plain(value, subclasses):
    try:
        encode(value, subclasses=subclasses)
    except TypeError:
        return False
    return True


def _value_of(tree, find):
    kind, content = tree
    if kind == "data":
        return content
    if kind == "object":
        return find(content)
    if kind == "dict":
        return {_value_of(key, find): _value_of(item, find) for key, item in content}
    if kind in _ITEMS:
        return _ITEMS[kind](_value_of(item, find) for item in content)
    if kind == "named":
        name, fields, items = content
        return _named_tuple(name, fields)(*(_value_of(item, find) for item in items))
    module_name, name = kind.split(".")
    if (module_name, name) not in _PARTS:
        raise ValueError(f"not plain data: {kind}")
    made = getattr(importlib.import_module(module_name), name)
    parts = [_value_of(part, find) for part in content]
    return made.fromisoformat(*parts) if hasattr(made, "fromisoformat") else made(*parts)


@functools.cache
def _named_tuple(name, fields):
    return collections.namedtuple(name, fields)
