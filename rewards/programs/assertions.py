"""Suites of `assert` statements, taken apart: the calls go into a sandbox as plain data, the verdicts stay outside.

`assert f(3, 4) == 7` becomes the call `f(3, 4)`, which is all that the sandbox hears of, and a comparison of its result
with 7, made here. An expression becomes a small tree of named operations from one table, `_OPERATIONS`, which works out
constants while a suite is lifted and verdicts afterwards; no source is ever evaluated. Values have bounded sizes before
and after every operation, so that neither a suite nor a hostile result can take the time or the memory of this process.
"""

from __future__ import annotations

import ast
import builtins
import copy
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

MAX_SIZE = 2**20  # items, characters and 64-bit words of integers in one value; characters of a suite
MAX_DEPTH = 100  # nested containers of a value, nested nodes of a suite
MAX_BITS = 2**14  # of an integer; Python's own limit for a literal, 4300 digits, is 14285 bits
MAX_COST = 2**22  # the sizes of all constants that a suite writes, works out, reads from variables and passes to calls
MAX_EXCERPT = 80  # characters of source in an error


@dataclass(frozen=True)
class Call:
    """What the sandbox is asked for: `function(*args, **kwargs)`, with arguments of exact builtin types."""

    function: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Assertion:
    """One `assert`: the calls it makes, in Python's order, and what their results must fulfil.

    All calls are to be made, also those that Python would skip in an `and`, an `or` or a chain of comparisons.
    """

    calls: tuple[Call, ...]
    test: Any  # a tree of _Apply, with a _Result where a call stood

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether the assertion holds for these results of its calls.

        Never raises: False for a result that is not plain data or is beyond a bound, and where Python would raise.

        >>> (assertion,) = lift("assert abs(half(3) - 1.5) < 1e-6")
        >>> assertion.calls
        (Call(function='half', args=(3,), kwargs={}),)
        >>> assertion.holds([1.5]), assertion.holds([2.5]), assertion.holds(["1.5"])
        (True, False, False)
        """
        try:
            return len(values) == len(self.calls) and bool(_evaluate(self.test, values))
        except Exception:
            return False


def lift(suite: str, entry_point: str | None = None) -> list[Assertion]:
    """Take a suite of assertions apart.

    A name that is called is a function of the solution, unless it is a builtin, imported, or defined in the suite.
    Lifted are literals, variables that hold constants, operators, comparisons, `and`, `or`, `not`, subscripts, and the
    functions in `_FUNCTIONS`; the arguments of a call must be constants. A plain `assert True`, as HumanEval has it, is
    left out.

    Every call gets its own copy of its arguments, so that what a call does to them is lost. A suite that looks at a
    variable which a call could have changed is refused.

    Args:
        suite: Python source: `assert` statements, as in MBPP, or a `def check(candidate)` of them, as in HumanEval.
        entry_point: The solution's function: the one to check where the suite does not call its `check`; needed as
            well when the function has a builtin's name.

    Raises:
        ValueError: There is no assertion, or one cannot be lifted; names its line, the reason, and the mend.

    >>> [assertion.calls[0].args for assertion in lift("def check(f): assert f(1) == 2; assert f(2) == 3", "successor")]
    [(1,), (2,)]
    """
    return _Lifter(suite, entry_point).lift()


# Below: expressions, how they are evaluated, and within which bounds.


@dataclass(frozen=True)
class _Result:
    index: int  # in the calls of the assertion


@dataclass(frozen=True)
class _Apply:
    operation: str  # a key of _OPERATIONS, "And" or "Or"
    operands: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]


def _evaluate(node: Any, values: Sequence[Any]) -> Any:
    if isinstance(node, _Result):
        _size(values[node.index], _PLAIN)
        return values[node.index]
    if not isinstance(node, _Apply):
        return node
    if node.operation in ("And", "Or"):
        for operand in node.operands:
            value = _evaluate(operand, values)
            if bool(value) == (node.operation == "Or"):
                break
        return value
    operands = [_evaluate(operand, values) for operand in node.operands]
    result = _OPERATIONS[node.operation](*operands, **{name: _evaluate(part, values) for name, part in node.keywords})
    _size(result)
    return result


_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_PLAIN = frozenset({*_TYPES, type(None)})
_KNOWN = _PLAIN | {range, slice, type}  # what may occur inside an expression


def _size(value: Any, known: frozenset[type] = _KNOWN) -> int:
    """Items, characters and words of a value, counted as a tree; raises for other types, and beyond a bound."""
    size, level = 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind not in known:
                raise TypeError(f"{kind.__name__} is not plain data")
            if kind is int:
                size += part.bit_length() // 64
                if part.bit_length() > MAX_BITS:
                    raise ValueError(f"an integer has more than {MAX_BITS} bits")
            elif kind in (str, bytes, range):
                size += len(part)
            elif kind in (list, tuple, dict, set, frozenset):
                _check_length(size + len(below) + len(part))
                below += [*part, *part.values()] if kind is dict else part
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
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > 2 * MAX_BITS:
        raise ValueError("a power is too large")
    return base**exponent


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes)):
        raise TypeError("% does not format text here")
    return left % right


def _round(number: Any, ndigits: Any = None) -> Any:
    if ndigits is not None and abs(ndigits) > 1000:  # an integer would be divided by 10 to this power
        raise ValueError("too many digits to round to")
    return round(number, ndigits)


def _sum(numbers: Any, start: Any = 0) -> Any:
    if not all(isinstance(number, (int, float, complex)) for number in numbers):
        raise TypeError("sum takes numbers alone here")  # sequences take quadratic time
    return sum(numbers, start)


def _set(items: Any = ()) -> set[Any]:
    groups: dict[int, list[Any]] = {}
    for item in items:
        group = groups.setdefault(hash(item), [])
        if item not in group:
            group.append(item)
            if len(group) > 16:  # of the multiples of 2**61 - 1, for one, a set takes quadratic time
                raise ValueError("too many items have one hash")
    return set(items)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (abs, all, any, chr, isinstance, len, max, min, ord, range, sorted)},
    **{kind.__name__: kind for kind in (bool, int, float, complex, str, list, tuple)},
    **{f"math.{f.__name__}": f for f in (math.isclose, math.sqrt, math.floor, math.ceil, math.fabs, math.isnan)},
    "frozenset": lambda items=(): frozenset(_set(items)),
    "round": _round,
    "set": _set,
    "sum": _sum,
    "type": lambda value: type(value),
}
_OPERATIONS = (  # the functions, and nodes of ast by their names
    _FUNCTIONS
    | {"Add": operator.add, "Sub": operator.sub, "Mult": _multiply, "Div": operator.truediv, "Mod": _modulo}
    | {"FloorDiv": operator.floordiv, "Pow": _power, "USub": operator.neg, "UAdd": operator.pos}
    | {"BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor, "Not": operator.not_}
    | {"Eq": operator.eq, "NotEq": operator.ne, "Is": operator.is_, "IsNot": operator.is_not}
    | {"Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge}
    | {"In": lambda item, items: item in items, "NotIn": lambda item, items: item not in items}
    | {"Subscript": operator.getitem, "Slice": slice, "List": lambda *items: list(items), "Tuple": lambda *items: items}
    | {"Set": lambda *items: set(items), "Dict": lambda *items: dict(zip(items[::2], items[1::2], strict=True))}
)
_KEYWORDS = {"reverse", "default", "ndigits", "start", "rel_tol", "abs_tol"}  # not `key`, which takes a function
_NAMES = {**{kind.__name__: kind for kind in _TYPES}, "math.pi": math.pi, "math.inf": math.inf, "math.nan": math.nan}


# Below: from a suite to expressions.

_REASONS: dict[type[ast.stmt], tuple[str, str]] = {
    ast.Expr: ("what a bare expression does is not seen outside the sandbox", "assert what the function returns"),
    ast.For: ("a loop is not lifted", "write one assertion per round"),
    ast.Try: ("an expected exception is not lifted", "leave the case out"),
    ast.ClassDef: ("a class is not lifted", "write its checks as `assert` statements"),
    ast.FunctionDef: ("a function is not lifted", "write its assertions outside it, or in one `def check(candidate):`"),
}
_OTHER = ("this statement is not lifted", "keep to assertions, imports, and constants assigned to names")
_WRITE_OUT = "write its value out"


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1] + "…"


class _Alias(str):
    """The full name of what an imported name, or the parameter of `check`, stands for."""


class _Lifter:
    """Walks a suite in the order in which Python would run it."""

    def __init__(self, suite: str, entry_point: str | None) -> None:
        self.suite, self.entry_point = suite, entry_point
        self.assertions: list[Assertion] = []
        self.scope: dict[str, Any] = {}  # name -> constant or _Alias
        self.solution = {entry_point}  # functions known to be the solution's, though builtins have their names
        self.check: ast.FunctionDef | None = None
        self.checked = False
        self.at: ast.stmt | None = None  # the statement being lifted
        self.calls: list[Call] = []  # of that statement
        self.read: set[int] = set()  # identities of what that statement looks at in variables
        self.sent: dict[int, Any] = {}  # what any call was passed and could have changed, by identity
        self.cost = 0

    def lift(self) -> list[Assertion]:
        if len(self.suite) > MAX_SIZE:
            self.refuse(f"it has more than {MAX_SIZE} characters", "leave tests out")
        try:
            tree = ast.parse(self.suite, "suite")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.refuse(f"not Python, {type(error).__name__}: {error}", "give `assert` statements")
        level: list[ast.AST] = [tree]
        for _ in range(MAX_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if level:
            self.refuse(f"it is nested more than {MAX_DEPTH} deep", "split its expressions")
        for statement in tree.body:
            self.statement(statement)
        self.at = None
        if self.check and not self.checked:
            if not self.entry_point:
                self.refuse("nothing calls its `check`", "give entry_point, or end it with `check(the_function)`")
            self.run_check(self.check, self.entry_point)
        if not self.assertions:
            self.refuse("it has no assertion", "write at least one `assert` of what the solution returns")
        return self.assertions

    def refuse(self, reason: str, mend: str) -> NoReturn:
        place = f"Line {self.at.lineno}, `{self.source(self.at)}`" if self.at else "The suite of assertions"
        raise ValueError(f"{place}: {reason}; {mend}.")

    def source(self, node: ast.AST) -> str:
        return _excerpt(ast.get_source_segment(self.suite, node) or "")

    def statement(self, statement: ast.stmt) -> None:
        self.at, self.calls, self.read = statement, [], set()
        match statement:
            case ast.Assert(test=test):
                self.assertion(test)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.scope[name] = self.constant(value)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                origin = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
                self.scope |= {name.asname or name.name: _Alias(origin + name.name) for name in names}
            case ast.FunctionDef(name="check", args=ast.arguments(args=[_])) if not self.check:
                self.check, self.scope["check"] = statement, _Alias("suite.check")
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[ast.Name(id=name)])) if self.check:
                self.run_check(self.check, name)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                self.refuse(*_REASONS.get(type(statement), _OTHER))
        if self.read & self.sent.keys():
            self.refuse("it looks at a variable that a call could have changed", "write its value out in its place")

    def assertion(self, test: ast.expr) -> None:
        if isinstance(test, ast.Tuple) and test.elts:
            self.refuse("a tuple is always true", "write `assert test, message` without parentheses")
        tree = self.expression(test)
        if self.calls:
            self.assertions.append(Assertion(tuple(self.calls), tree))
        elif not (isinstance(test, ast.Constant) and test.value is True):
            self.refuse("it calls no function of the solution", "call one, or give it as entry_point")

    def run_check(self, check: ast.FunctionDef, name: str) -> None:
        """Lift the body of `check`, with its parameter standing for the function of this name."""
        if self.entry_point not in (None, name):
            self.refuse(f"{name} is not the entry point {self.entry_point}", "check the solution's function")
        outer, self.scope = self.scope, {**self.scope, check.args.args[0].arg: _Alias(name)}
        self.solution.add(name)
        self.check, self.checked = None, True  # it cannot call itself
        for statement in check.body:
            self.statement(statement)
        self.scope, self.check = outer, check

    def charge(self, *values: Any, known: frozenset[type] = _KNOWN) -> None:
        """Hold constants against the bounds of a value, and against what is left of the suite's."""
        try:
            self.cost += sum(_size(value, known) for value in values)
        except (TypeError, ValueError) as error:
            self.refuse(str(error), "keep to small values of builtin types")
        if self.cost > MAX_COST:
            self.refuse(f"the constants so far cost more than {MAX_COST} steps", "shorten them, or leave tests out")

    def constant(self, node: ast.expr) -> Any:
        value = self.expression(node)
        if isinstance(value, (_Apply, _Result)):
            self.refuse(f"`{self.source(node)}` takes the result of a call, and has to be a constant", _WRITE_OUT)
        return value

    def expression(self, node: ast.expr) -> Any:
        """The value of an expression of constants; the tree of any other."""
        match node:
            case ast.Constant(value=value):
                self.charge(value)
                return value
            case ast.Name(id=name) if not isinstance(self.scope.get(name, _Alias()), _Alias):
                self.charge(self.scope[name])
                self.read |= _mutable(self.scope[name]).keys()
                return self.scope[name]
            case ast.Name() | ast.Attribute() if self.full_name(node) in _NAMES:
                return _NAMES[self.full_name(node)]
            case ast.UnaryOp() | ast.BinOp() | ast.BoolOp() | ast.Subscript() | ast.List() | ast.Tuple() | ast.Set():
                parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
                return self.apply(type(getattr(node, "op", node)).__name__, map(self.expression, parts))
            case ast.Slice(lower=lower, upper=upper, step=step):
                return self.apply("Slice", [part and self.expression(part) for part in (lower, upper, step)])
            case ast.Dict(keys=keys, values=values) if all(keys):
                pairs = zip(keys, values, strict=True)
                return self.apply("Dict", [self.expression(part) for pair in pairs for part in pair if part])
            case ast.Compare(left=left, ops=ops, comparators=rest):
                sides = [self.expression(side) for side in (left, *rest)]
                links = [self.comparison(op, *pair) for op, pair in zip(ops, itertools.pairwise(sides), strict=True)]
                return self.apply("And", links) if len(links) > 1 else links[0]
            case ast.Call():
                return self.call(node)
        return self.refuse(f"`{self.source(node)}` is not lifted", _WRITE_OUT)

    def apply(self, operation: str, operands: Iterable[Any], keywords: Iterable[tuple[str, Any]] = ()) -> Any:
        if operation not in ("And", "Or", *_OPERATIONS):
            self.refuse(f"the operator {operation} is not lifted", _WRITE_OUT)
        node = _Apply(operation, tuple(operands), tuple(keywords))
        if any(isinstance(part, (_Apply, _Result)) for part in (*node.operands, *dict(node.keywords).values())):
            return node
        try:
            value = _evaluate(node, ())
        except Exception as error:
            reason = f"a constant in it raises {type(error).__name__}: {_excerpt(str(error))}"
            self.refuse(reason, "correct it, or leave it out")
        self.charge(value)
        return value

    def comparison(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        singletons = [side for side in (left, right) if side is None or isinstance(side, (bool, type))]
        if isinstance(op, (ast.Is, ast.IsNot)) and not singletons:
            self.refuse("`is` asks for an identity, which no result of a sandbox has", "write `==`")
        return self.apply(type(op).__name__, [left, right])

    def full_name(self, node: ast.expr) -> str:
        """What a name, or a dotted one, stands for; empty for a variable, and for what is no name."""
        if isinstance(node, ast.Attribute):
            base = self.full_name(node.value)
            return base and f"{base}.{node.attr}"
        known = self.scope.get(node.id, _Alias(node.id)) if isinstance(node, ast.Name) else ""
        return known if isinstance(known, _Alias) else ""

    def call(self, node: ast.Call) -> Any:
        name = self.full_name(node.func)
        if name in self.solution or (name and "." not in name and not hasattr(builtins, name)):
            return self.solution_call(name, node)
        if name not in _FUNCTIONS:
            mend = f"{_WRITE_OUT}, or give entry_point if this is the solution's function"
            self.refuse(f"the function `{self.source(node.func)}` is not lifted", mend)
        for keyword in node.keywords:
            if keyword.arg not in _KEYWORDS:
                self.refuse(f"`{self.source(keyword)}` is not lifted", _WRITE_OUT)
        keywords = [(str(keyword.arg), self.expression(keyword.value)) for keyword in node.keywords]
        return self.apply(name, map(self.expression, node.args), keywords)

    def solution_call(self, name: str, node: ast.Call) -> _Result:
        if not all(keyword.arg for keyword in node.keywords):
            self.refuse("`**` in a call is not lifted", "write the keywords out")
        read = self.read.copy()
        args = tuple(map(self.constant, node.args))
        kwargs = {str(keyword.arg): self.constant(keyword.value) for keyword in node.keywords}
        self.read = read  # passing a variable on is not looking at it
        self.charge(args, kwargs, known=_PLAIN)
        self.sent |= _mutable((args, kwargs))
        self.calls.append(Call(name, *copy.deepcopy((args, kwargs))))
        return _Result(len(self.calls) - 1)


def _mutable(value: Any) -> dict[int, Any]:
    """The lists, dicts and sets in a value, by identity."""
    found = {id(value): value} if isinstance(value, (list, dict, set)) else {}
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            found |= _mutable(part)
    return found
