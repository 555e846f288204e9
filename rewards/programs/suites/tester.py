"""Runs one suite of tests in a box of its own. The source of this file is sent into the box.

The runner executes it in a child of its own, after wire.py, messages.py and stand_ins.py, with the names `program` (the
source of the suite) and `order` (what to do). The names that the suite tests are stand-ins. They send each call to the
box of the solution, which returns plain data. The suite compares the data here, so its expected values stay here.

An instance of a class of the solution stays in the box of the solution, and a `_Remote` stands for it. Its attributes,
methods, items and length are asked for there. It equals only itself, because the solution could answer every
comparison with True. For the same reason, order needs an instance on both sides, and an instance that a function
returned has no methods that lists, texts and other data have. Arithmetic needs an instance on both sides, or one that
the suite made by calling its class, and then gives an object that is no number. If the class extends a builtin one,
such as `list`, the suite compares and computes with the items of the list. Named tuples of the solution and members of
its enumerations are such instances. Other data that a function returns are copied.
"""

# ruff: noqa: F821
# mypy: disable-error-code="name-defined"

import _thread
import builtins
import collections
import dis
import functools
import itertools
import marshal
import operator
import sys
import types

_ERRORS: dict = {}  # names of an exception's class and its bases -> the class that stands for it
_SENT: dict = {}  # id of a function of the suite -> the function, so that no other one gets this id
_REMOTES: dict = {}  # number -> the object that stands for it
# The last attributes of objects that the suite got and may change in place, such as a list, with their text. They are
# few and small, because each question compares them with their text.
_LENT: collections.deque = collections.deque(maxlen=8)
_MOST_LENT = 10_000  # characters
_METHODS_OF_DATA = {name for kind in _DATA for name in dir(kind) if not name.startswith("_")}
_COPIES = Copies({}, order["classes"], 1)
_ASKING = _thread.allocate_lock()  # a suite may call the solution from several threads
_EXTENDS = "a class of the suite extends one of the solution, which is in another sandbox"
_COROUTINE = 0x80  # the flag of a function that is defined with `async`


class _GoneError(BaseException):
    """The solution's process has ended."""


class _ListedError(BaseException):
    """The suite called the solution while its calls are only listed."""


class _State:
    calls = 0  # how often the solution was asked to do something
    counted = 0  # how many of these calls belong to a case that has its verdict
    listed = ""  # while calls are only listed: the last function or class of the solution that the suite called


def _ask(name, *args, **kwargs):
    """Let the solution's process call a function of `operator` or `builtins`."""
    text = pack([name, list(args), kwargs, _changed()], _number_of)  # an iterator among the arguments may ask, too
    with _ASKING:
        _State.calls += name != "getattr"
        say("ask " + _COPIES.write(text, _number_of))
        answer, _ = _COPIES.read(_heard(), _found)
        kind, *content = unpack(answer, _found)
    if kind == "error":
        names, given, text, attributes = content
        error = _error(_error_class(tuple(names)), given)
        vars(error).update(attributes)
        error.relayed = text
        raise error
    value, same, changed, lent = content
    given = {**dict(enumerate(args)), **kwargs}
    for place, new in changed:
        refill(given[place], new)
    if lent is not None and len(text := pack(value, _number_of)) < _MOST_LENT:
        _LENT.append([lent, value, text])
    return value if same is None else given[same]


def _changed():
    """The numbers of attributes that the suite has changed in place since the last question, and what they are now."""
    found = []
    for entry in list(_LENT):
        number, value, before = entry
        entry[2] = pack(value, _number_of)
        if entry[2] != before:
            found.append([number, value])
    return found


def _heard():
    text = hear()
    if text in ("", "gone"):
        raise _GoneError
    return text


def _number_of(value):
    """What stands for a value that is not data, in a message to the solution."""
    if isinstance(value, _Remote):
        return value._remote.number
    if (key := _COPIES.key(value)) is not None:
        return ["copy", key]
    number = getattr(value, "number_of_error", None) if isinstance(value, type) else None
    if number is not None:
        return number
    if hasattr(value, "__next__"):
        items = list(itertools.islice(value, MAX_ITEMS + 1))
        if len(items) > MAX_ITEMS:
            raise NotJudgedError(f"an iterator with more than {MAX_ITEMS} items cannot be sent to the solution")
        return ["iterator", pack(items, _number_of)]
    module, path = str(getattr(value, "__module__", None)), getattr(value, "__qualname__", "")
    if module in sys.stdlib_module_names and _at(module, path) is value:
        return ["library", module, path]
    if type(value) is types.FunctionType:
        return _function_of_suite(value)
    raise NotJudgedError(f"a {type(value).__name__} cannot be sent to the solution")


def _at(module, path):
    try:
        return operator.attrgetter(path)(sys.modules[module])
    except (AttributeError, KeyError):
        return None


def _function_of_suite(function):
    """A function as its code, which runs in the box of the solution. It must not need anything else of the suite."""
    codes = [function.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    used = {name for code in codes for name in code.co_names if dict.__contains__(function.__globals__, name)}
    used |= {*function.__code__.co_freevars}
    if used:
        raise NotJudgedError(
            f"the function {function.__name__} uses {', '.join(sorted(used))}, so it cannot be sent to the solution"
        )
    if any("assertionerror" in dis.Bytecode(code).dis().replace("_", "").lower() for code in codes):
        raise NotJudgedError(f"the function {function.__name__} has an assertion, so it cannot be sent to the solution")
    _SENT[id(function)] = function
    defaults = pack([function.__defaults__, function.__kwdefaults__], _number_of)
    return ["function", id(function), marshal.dumps(function.__code__), defaults]


def _found(content):
    if content[0] == "copy":
        return _COPIES.by_key[content[1]]
    number, names, has_data, data = content
    if number not in _REMOTES:
        _REMOTES[number] = _Remote(number, has_data, data)
        if names:
            _REMOTES[number] = _error_class(tuple(names))
            if _library_error(names[0]) is None:
                _REMOTES[number].number_of_error = number
    return _REMOTES[number]


def _error_class(names):
    """The class that stands for a class of exceptions: itself if it belongs to a module that the suite has loaded."""
    known = _library_error(names[0]) if names else Exception
    if known is not None:
        return known
    if names not in _ERRORS:
        text = {"__str__": lambda self: getattr(self, "relayed", "")}
        _ERRORS[names] = type(names[0].rpartition(".")[2], (_error_class(names[1:]),), text)
    return _ERRORS[names]


def _library_error(name):
    module, _, name = name.rpartition(".")
    known = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return known if isinstance(known, type) and issubclass(known, BaseException) else None


def _error(kind, args):
    try:
        return kind(*args)
    except TypeError:  # its `args` are not the arguments of its constructor
        return kind.__new__(kind, *args)


class _Remote:
    """An object of the solution."""

    def __init__(self, number, has_data=False, data=""):
        # The name of the attribute that the object was read from; whether it is the result of a function, so that the
        # suite expects data rather than an object; whether the suite made it by calling its class; and whether it comes
        # from arithmetic with data of the suite.
        facts = {"name": "", "is_result": True, "is_made": False, "is_computed": False}
        object.__setattr__(self, "_remote", types.SimpleNamespace(number=number, has_data=has_data, **facts))
        self._remote.data = unpack(data, _found) if data else None

    def __getattr__(self, name):
        is_of_data = self._remote.is_result and name in _METHODS_OF_DATA
        if is_of_data and not self._remote.has_data:
            raise AttributeError(f"the solution returned an object, whose {name} is not asked for")
        value = _ask("getattr", self, name)
        if is_of_data and isinstance(value, _Remote):  # not a field of a named tuple
            return getattr(_data(self), name)
        if isinstance(value, _Remote):
            value._remote.name, value._remote.is_result = name, False
        return value

    def __setattr__(self, name, value):
        _ask("setattr", self, name, value)

    def __call__(self, *args, **kwargs):
        value = _ask("call", self, *args, **kwargs)
        if isinstance(value, _Remote) and self._remote.name[:1].isupper():  # an instance of a class
            value._remote.is_result, value._remote.is_made = False, True
        return value

    def __eq__(self, other):
        if self is other or not self._remote.has_data:
            return True if self is other else NotImplemented
        return _data(self) == _data(other)

    __class__ = property(lambda self: type(_data(self)) if self._remote.has_data else _Remote)

    def __hash__(self):
        return hash(_data(self)) if self._remote.has_data else object.__hash__(self)

    def __instancecheck__(self, value):
        return isinstance(value, _Remote) and _ask("isinstance", value, self)

    def __contains__(self, item):
        if self._remote.is_result and self._remote.data is not None:
            return item in self._remote.data
        if self._remote.is_result:
            return any(part == item for part in _ask("iter", self))
        return _ask("contains", self, item)

    def __enter__(self):
        return self.__getattr__("__enter__")()

    def __exit__(self, *error):
        self.__getattr__("__exit__")(None, None, None)  # what it returns could hide an error of the suite

    def __copy__(self):
        return _copied(self, "copy")

    def __deepcopy__(self, memo):
        return _copied(self, "deepcopy")

    def __mro_entries__(self, bases):
        raise NotJudgedError(_EXTENDS)

    def __format__(self, spec):
        return format(str(self), spec)


def _copied(remote, name):
    value = _ask("call", getattr(sys.modules["copy"], name), remote)
    if isinstance(value, _Remote):
        value._remote.is_result, value._remote.is_made = remote._remote.is_result, remote._remote.is_made
    return value


def _relayed(name):
    return lambda self, *args: _ask(name, self, *args)


def _relayed_of_items(name):
    """An operation on the items of an object, or on its data here if the solution returned data that cannot change."""

    def operate(self, *args):
        if self._remote.is_result and self._remote.data is not None:
            return _OF_ITEMS[name](self._remote.data, *args)
        return _ask(name, self, *args)

    return operate


def _relayed_number(name):
    """A conversion to a number or a truth value. The solution could know the right one after arithmetic with data."""

    def convert(self, *args):
        if self._remote.is_computed:
            raise TypeError(f"{name} of an object that comes from arithmetic with a number is not asked for")
        return _ask(name, self, *args)

    return convert


def _data(value):
    """The data of an instance whose class extends a builtin one. Its own methods are not called."""
    if not isinstance(value, _Remote) or not value._remote.has_data:
        return value
    return _ask("data", value) if value._remote.data is None else value._remote.data


def _relayed_between(name, swapped=False, also_with_data=False):
    """An operator of two objects of the solution, and with `also_with_data` of data and an object that the suite made.

    If the object has data, the operator is applied to its data here, so that the solution does not see the other data.
    """

    def operate(self, other):
        pair = (other, self) if swapped else (self, other)
        if isinstance(other, _Remote):
            return _computed(name, *pair)
        if self._remote.has_data:
            return getattr(operator, name)(*map(_data, pair))
        return _computed(name, *pair) if also_with_data and self._remote.is_made else NotImplemented

    return operate


def _relayed_in_place(name):
    """An operator that may change the object. Python uses the operator that changes nothing instead, if need be."""

    def operate(self, other):
        is_asked = isinstance(other, _Remote) or (self._remote.is_made and not self._remote.has_data)
        return _computed(name, self, other) if is_asked else NotImplemented

    return operate


def _computed(name, *operands):
    """What the solution computes. If it saw data of the suite, it could give the data that is expected."""
    value = _ask(name, *operands)
    objects = [operand._remote for operand in operands if isinstance(operand, _Remote)]
    saw_data = len(objects) < len(operands) or any(part.is_computed for part in objects)
    if not isinstance(value, _Remote) or value._remote.has_data:
        return NotImplemented if saw_data else value
    value._remote.is_made |= all(part.is_made for part in objects)
    value._remote.is_computed |= saw_data
    return value


for _name in "next str repr setitem delitem".split():
    setattr(_Remote, f"__{_name}__", _relayed(_name))
for _name in "neg pos invert".split():
    setattr(_Remote, f"__{_name}__", lambda self, name=_name: _computed(name, self))
_OF_ITEMS: dict = {"len": len, "iter": iter, "getitem": operator.getitem}
for _name in _OF_ITEMS:
    setattr(_Remote, f"__{_name}__", _relayed_of_items(_name))
for _name in "bool int float abs round index".split():
    setattr(_Remote, f"__{_name}__", _relayed_number(_name))
for _name in "lt le gt ge".split():
    setattr(_Remote, f"__{_name}__", _relayed_between(_name))
for _name in "add sub mul truediv floordiv mod pow matmul and or xor".split():
    _full_name = f"{_name}_" if _name in ("and", "or", "xor") else _name
    setattr(_Remote, f"__{_name}__", _relayed_between(_full_name, also_with_data=True))
    setattr(_Remote, f"__r{_name}__", _relayed_between(_full_name, swapped=True, also_with_data=True))
    setattr(_Remote, f"__i{_name}__", _relayed_in_place(f"i{_name}"))


_SOLUTION = _Remote(0)
_SOLUTION._remote.is_result = False


class _Listed:
    """Stands for a name of the solution while the calls of a script are only listed."""

    def __init__(self, path):
        self.path = path

    def __getattr__(self, name):
        return _Listed(f"{self.path}.{name}")

    def __call__(self, *args, **kwargs):
        is_class = self.path.rpartition(".")[2][:1].isupper() and not self.path.endswith("()")
        if not is_class:
            pack([list(args), kwargs], _listed_number)
        _State.calls += 1
        _State.listed = self.path
        if is_class:
            return _Listed(f"{self.path}()")
        raise _ListedError


def _listed_number(value):
    if not isinstance(value, _Listed):
        return _number_of(value)
    if not value.path.endswith("()") and value.path.split(".")[0] not in order["imported"]:
        raise NotJudgedError(f"the name {value.path} is not defined")
    return 0


class _Absent:
    """Stands for a name of the solution while test functions are only loaded. Whatever is done with it gives itself."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        return self

    def __iter__(self):
        return iter(())

    def __mro_entries__(self, bases):
        raise NotJudgedError(_EXTENDS)


_ABSENT = _Absent()


class _Solution(types.ModuleType):
    """What `import solution` finds."""

    def __init__(self, get):
        super().__init__("solution")
        super().__setattr__("get", get)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __setattr__(self, name, value):
        if order["do"] not in ("check", "list"):  # there is a solution
            setattr(_SOLUTION, name, value)


class _Names(dict):
    """The names of the suite. A name that neither the suite nor Python defines is a name of the solution.

    A suite without test functions is a script, so its `if __name__ == "__main__":` runs.
    """

    def __init__(self, get):
        name = "test_solution" if order["do"] in ("check", "test") else "__main__"
        super().__init__(__name__=name, __file__="/tmp/test_solution.py", __builtins__=builtins)
        self.get_name = get

    def __missing__(self, name):
        if name.startswith("__") or hasattr(builtins, name):
            raise KeyError(name)
        try:
            return self.get_name(name)
        except AttributeError:
            raise KeyError(name) from None


class _Case:
    """Around one statement of a script. If the statement calls the solution, it is a case with a verdict of its own."""

    def __init__(self, end):
        self.end, self.starts = end, []

    def __enter__(self):
        self.starts.append(_State.calls)

    def __exit__(self, kind, error, traceback):
        start = max(self.starts.pop(), _State.counted)
        if isinstance(error, (_GoneError, NotJudgedError)):
            return False
        if _State.calls == start:
            return False
        _State.counted = _State.calls
        self.end(error)
        return True


def _with_cases(suite):
    """The code of a script with a `_Case` around every assertion and bare call, outside functions or in `check`."""
    import ast

    class Cases(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return self.generic_visit(node) if node.name == "check" else node

        def visit_ClassDef(self, node):
            return node

        visit_AsyncFunctionDef = visit_ClassDef  # noqa: N815

        def visit_Expr(self, node):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                return node
            case = ast.withitem(context_expr=ast.Name(id="__case__", ctx=ast.Load()))
            return ast.copy_location(ast.With(items=[case], body=[node]), node)

        visit_Assert = visit_With = visit_Try = visit_Expr  # noqa: N815

    return compile(ast.fix_missing_locations(Cases().visit(ast.parse(suite))), "suite.py", "exec")


def _status(error):
    """The verdict of a test that ended with this error or None. An idle test says nothing about the solution."""
    if hasattr(error, "relayed"):
        return "wrong"
    if type(error).__name__ == "SkipTest" or (error is None and not _State.calls):
        return "idle"
    if error is None:
        return "ok"
    missing_module = isinstance(error, ModuleNotFoundError) and error.name != "solution"
    if missing_module or isinstance(error, NotJudgedError):
        return f"no_gold {type(error).__name__}: {error}"
    return "wrong"


def _list_cases():
    """Say which function each case of a script calls. A script whose statements need each other has one case."""
    called = []
    names = _Names(_Listed)
    names["__case__"] = _Case(lambda error: called.append(_State.listed))
    try:
        _run(_with_cases(program), names)
    except (ImportError, SyntaxError, NotJudgedError):
        raise
    except (Exception, _ListedError):
        if not _State.listed:
            raise
        return f"whole {(called or [_State.listed])[0]}"  # a later statement needs the result of an earlier one
    return f"cases {' '.join(called)}"


def _check_tests():
    """Load a suite of test functions without a solution, to see which tests it has and whether they can be run."""
    names = _Names(lambda name: _ABSENT)
    tests = order["tests"]
    try:
        _run(program, names)
        tests = [test for test in _tests_in(names, names["__name__"]) if test not in order["called"]]
        for test in tests:
            function, rows = _test_function(names, test)
            for row in rows:
                for name in _parameters(function):
                    _Fixtures(names, function, row).check(name)
    except (ImportError, SyntaxError, NotJudgedError):
        raise
    except Exception:  # the suite's own code needs a result of the solution
        pass
    return f"tests {' '.join(tests)}"


def _tests_in(members, module):
    """The tests among the members of the suite or of a class: those that pytest and unittest would find."""
    for name, value in [*members.items()]:
        if isinstance(value, (types.FunctionType, staticmethod, classmethod)) and name.startswith("test"):
            yield name
            continue
        is_own_class = isinstance(value, type) and value.__module__ == module
        if is_own_class and (name.startswith("Test") or hasattr(value, "assertEqual")):
            inside = {part: vars(base)[part] for base in reversed(value.__mro__) for part in vars(base)}
            yield from (f"{name}.{test}" for test in _tests_in(inside, module))


def _judge_script():
    """Run a script, and say the verdict of each case."""
    names = _Names(_SOLUTION.__getattr__)
    code = program
    if order["do"] == "cases":
        names["__case__"] = _Case(lambda error: _say(_status(error)))
        code = _with_cases(code)
    _run(code, names)
    return None if order["do"] == "cases" else _status(None)


def _judge_test():
    """Run one test function."""
    names = _Names(_SOLUTION.__getattr__)
    _run(program, names)
    function, rows = _test_function(names, order["test"])
    _set_up(names, "setup_module", "setUpModule")
    for row in rows:
        function, _ = _test_function(names, order["test"])  # a new instance of the class
        _set_up(names, *[] if isinstance(function, types.MethodType) else ["setup_function"])
        fixtures = _Fixtures(names, function, row)
        fixtures.set_up()
        function(**{name: fixtures[name] for name in _parameters(function)})
    return _status(None)


def _set_up(names, *functions):
    """Call those of these functions that exist. They may take an argument, which suites ignore."""
    for function in (names[name] for name in functions if dict.__contains__(names, name)):
        function(*[None] * len(_parameters(function)))


def _run(code, names):
    """Run the suite's own code, and `check` if the order says so."""
    sys.modules["solution"] = _Solution(names.get_name)
    sys.modules[names["__name__"]] = types.ModuleType(names["__name__"])  # dataclasses look for the module of a class
    _COPIES.names = names
    entry_point = order["entry_point"]
    if entry_point:
        names[entry_point] = names.get_name(entry_point)
    exec(code if isinstance(code, types.CodeType) else compile(code, "suite.py", "exec"), names)
    if order["check"]:
        names["check"](names[entry_point])


def _test_function(names, test):
    """The function of a test, and its rows of parameters. A method gets a new instance, which is set up."""
    owner, _, name = test.rpartition(".")
    if not owner:
        function = names[name]
        return function, getattr(function, "parameters", [{}])
    outer, *inner = owner.split(".")
    kind = functools.reduce(getattr, inner, names[outer])
    if hasattr(kind, "assertEqual"):  # a unittest.TestCase
        _parameters(getattr(kind, name))  # it may be asynchronous
        kind.setUpClass()
        return kind(name).debug, [{}]
    instance = kind()
    function = getattr(instance, name)
    if hasattr(kind, "setup_class"):
        kind.setup_class()
    if hasattr(instance, "setup_method"):
        instance.setup_method(*[function][: len(_parameters(instance.setup_method))])
    rows = [a | b for a in getattr(kind, "parameters", [{}]) for b in getattr(function, "parameters", [{}])]
    return function, rows


def _parameters(function):
    """The names of a function's parameters without defaults, without `self`."""
    bound = isinstance(function, types.MethodType)
    function = getattr(function, "__func__", function)
    code = function.__code__
    if code.co_flags & _COROUTINE:
        raise NotJudgedError(f"{function.__name__} is asynchronous")
    names = code.co_varnames[: code.co_argcount - len(function.__defaults__ or ())]
    return names[1:] if bound else names


class _Fixtures(dict):
    """The arguments of one test by name: its parameters, and the values of fixtures, each made once.

    A fixture is a function of the suite, or a method of the test's class.
    """

    def __init__(self, names, function, row):
        super().__init__(row)
        self.names, self.instance = names, getattr(function, "__self__", None)

    def find(self, name):
        fixture = getattr(self.instance, name, None) or self.names.get(name)
        is_function = isinstance(fixture, (types.FunctionType, types.MethodType))
        return fixture if is_function and hasattr(fixture, "is_fixture") else None

    def check(self, name):
        fixture = self.find(name)
        if name not in self and fixture is None:
            raise NotJudgedError(f"the fixture {name} is not supported")
        for other in () if name in self else _parameters(fixture):
            self.check(other)

    def __missing__(self, name):
        self.check(name)
        fixture = self.find(name)
        value = fixture(**{other: self[other] for other in _parameters(fixture)})
        self[name] = next(value) if isinstance(value, types.GeneratorType) else value
        return self[name]

    def set_up(self):
        """Make the fixtures that every test uses."""
        for name in [*self.names, *dir(type(self.instance))]:
            if getattr(self.find(name), "autouse", False):
                self[name]


_DO: dict = {
    "list": _list_cases,
    "check": _check_tests,
    "cases": _judge_script,
    "whole": _judge_script,
    "test": _judge_test,
}


def _say(answer):
    """Say a verdict or an answer about the suite, and wait until it was heard."""
    say(" ".join(answer.split()).encode("ascii", "replace").decode())
    hear()


def _main():
    install()
    do = order["do"]
    if "random" in program:  # the cases that are judged must be those that were listed
        import random

        random.seed(0)
    try:
        exec(order["source"], {"__name__": "solution"})  # it must also run in the box of the solution
        answer = _DO[do]()
    except _GoneError:
        return
    except BaseException as error:
        answer = f"refused {type(error).__name__}: {error}" if do in ("list", "check") else _status(error)
    if answer is not None:
        _say(answer)


_main()
