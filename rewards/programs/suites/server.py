"""Runs a solution in its box and does what the suite asks. The source of this file is sent into the box.

The runner executes it in a child of its own, after wire.py and messages.py, with the names `program` (the source of
the solution) and `module` (the module to run it in). The suite asks for one function of `operator` or `builtins` at a
time, for example `getattr(module, "add")` and then `call(add, 2, 3)`. The suite stays in its own box, and the suite
judges what it gets, so nothing that the solution does to this process can change a verdict.
"""

# ruff: noqa: F821
# mypy: disable-error-code="name-defined"

import builtins
import importlib
import marshal
import operator
import types

_objects: list = []  # what the suite knows by number; the first is the module
_numbers: dict = {}  # id of an object -> its number
_functions: dict = {}  # the suite's key of a function -> the function
_copies = Copies(module.__dict__, order["classes"], -1)


class _Module:
    """The solution's names. A missing function may be a method of the class `Solution`."""

    def __getattr__(self, name):
        if not hasattr(module, name) and hasattr(module, "Solution"):
            return getattr(module.Solution(), name)
        return getattr(module, name)

    def __setattr__(self, name, value):
        setattr(module, name, value)


def _find(content):
    """The object that the suite sends, as a number, a name of the standard library, items, or code of a function."""
    if isinstance(content, int):
        return _objects[content]
    kind, *parts = content
    return _FOUND[kind](*parts)


def _function(key, code, defaults):
    """A function of the suite that uses no names of the suite. It is made once."""
    if key not in _functions:
        defaults, keywords = unpack(defaults, _find)
        _functions[key] = types.FunctionType(marshal.loads(code), module.__dict__, None, defaults)
        _functions[key].__kwdefaults__ = keywords
    return _functions[key]


_FOUND: dict = {
    "library": lambda name, path: operator.attrgetter(path)(importlib.import_module(name)),
    "iterator": lambda items: iter(unpack(items, _find)),
    "function": _function,
    "copy": lambda key: _copies.by_key[key],
}


class _Kept:
    """An instance that the suite gets as an object, although its class extends a builtin one."""

    def __init__(self, value):
        self.value = value


def _is_instance(value, subject):
    """Whether the value belongs to a class of the solution, and was read or called from this class or its instance."""
    owner = getattr(subject, "__self__", subject)
    return type(value).__module__ == module.__name__ and type(value) in (owner, type(owner))


def _number(value):
    """The number of an object, and what the suite must know of it; or the key of an instance that the suite has, too.

    For a class of exceptions, these are the names of the class and its bases. For an instance of a class that extends a
    builtin one, it is that the object has data, and the data itself if it cannot change.
    """
    if (key := _copies.key(value)) is not None:
        return ["copy", key]
    value = value.value if type(value) is _Kept else value
    if id(value) not in _numbers:
        _numbers[id(value)] = len(_objects)
        _objects.append(value)
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    data = pack(_data(value), _number) if isinstance(value, _UNCHANGING) else ""
    return [_numbers[id(value)], _names(value) if is_error else [], isinstance(value, _DATA), data]


def _names(error):
    """The names of a class of exceptions and its bases, each after the name of its module."""
    return [f"{base.__module__}.{base.__name__}" for base in error.__mro__]


def _data(value):
    """The data of an instance whose class extends a builtin one. Its own methods are not called."""
    kind = next(kind for kind in _DATA if isinstance(value, kind))
    if kind in _ITEMS.values():
        return kind(kind.__iter__(value))
    return dict(dict.items(value)) if kind is dict else decode(encode(value))


def _given(args, kwargs):
    """The arguments that a function may change in place: the place, the argument, and its text before the call."""
    arguments = [*enumerate(args), *kwargs.items()]
    return [(place, part, pack(part, _number)) for place, part in arguments if type(part) in CHANGEABLE]


def _do(text):
    """Call the function that the suite names, and write the result or the exception."""
    try:
        name, args, kwargs, changed_by_suite = unpack(text, _find)
        for number, new in changed_by_suite:
            refill(_objects[number], new)
        given = _given(args, kwargs) if name == "call" else []
        function = _data if name == "data" else getattr(operator, name, None) or getattr(builtins, name)
        value = function(*args, **kwargs)
        same = next((place for place, argument, _ in given if argument is value), None)
        changed = [[place, argument] for place, argument, before in given if pack(argument, _number) != before]
        lent = _number(value)[0] if name == "getattr" and type(value) in CHANGEABLE else None
        if name in ("call", "getattr") and _is_instance(value, args[0]):
            value = _Kept(value)
        return pack(["value", None if same is not None else value, same, changed, lent], _number)
    except BaseException as error:
        names = _names(type(error))
        try:
            return pack(["error", names, list(error.args), str(error), dict(vars(error))], _number)
        except BaseException:
            return pack(["error", names, [], "", {}], _number)


_number(_Module())
_defined: dict = {"__name__": module.__name__}
exec(order["source"], _defined)
module.__dict__.update({name: _defined[name] for name in order["classes"]})
exec(compile(program, "solution.py", "exec"), module.__dict__)
say("ready")
while asked := hear():
    text, given = _copies.read(asked, _find)
    answer = _do(text)
    for key in given:  # the solution may have changed them
        _copies.send(key)
    say(_copies.write(answer, _number))
