"""Tests that are `assert` statements. Each is split into calls for the sandbox and a comparison outside the sandbox.

For `assert f(3, 4) == 7`, the sandbox receives only the call `f(3, 4)`. This process then compares the result with 7.
Expected values therefore never enter the sandbox, and no source is evaluated outside the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from .expressions import (
    CONSTANT_TYPES,
    EXPRESSION_TYPES,
    FUNCTIONS,
    KEYWORDS,
    MAX_DEPTH,
    MAX_SIZE,
    NAMES,
    OPERATIONS,
    PLAIN_TYPES,
    CallResult,
    Operation,
    evaluate,
    measure,
)

MAX_COST = 2**22  # total size of all constants in a suite: written, computed, read from variables and passed to calls
MAX_EXCERPT = 80  # characters of source in an error


@dataclass(frozen=True)
class Call:
    """A call that the sandbox makes: `function(*args, **kwargs)`, with arguments of exact builtin types.

    If the function returns an iterator, the sandbox reads `items` items of it, or all if `items` is None.
    """

    function: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    items: int | None = None


@dataclass(frozen=True)
class Assertion:
    """One `assert` statement: a list of calls in Python's order, and a condition on their results.

    All calls must be made, including calls that Python would skip in an `and`, an `or` or a chain of comparisons.
    """

    calls: tuple[Call, ...]
    condition: Any  # a tree of Operation, with a CallResult in place of each call

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether the assertion holds for the results of its calls.

        Never raises. The assertion does not hold if a result is too large or is not plain data, or if Python would
        raise.

        Args:
            values: One result per call.

        >>> (assertion,) = parse_assertions("assert abs(half(3) - 1.5) < 1e-6")
        >>> assertion.calls
        (Call(function='half', args=(3,), kwargs={}, items=None),)
        >>> assertion.holds([1.5]), assertion.holds([2.5]), assertion.holds(["1.5"])
        (True, False, False)
        """
        try:
            return len(values) == len(self.calls) and bool(evaluate(self.condition, values))
        except Exception:
            return False


def parse_assertions(suite: str, entry_point: str | None = None) -> list[Assertion]:
    """Parse a suite of assertions.

    A called name is a function of the solution, unless it is a builtin, imported, or defined in the suite. Supported
    are literals, variables with constant values, operators, comparisons, `and`, `or`, `not`, subscripts, and the
    functions in `expressions.FUNCTIONS`. The arguments of a call must be constants. A plain `assert True`, which occurs
    in HumanEval, is ignored.

    All items of a returned iterator are read, up to a limit. Only `next` and `itertools.islice` read fewer, so that
    they can test an endless iterator.

    Every call gets a copy of its arguments, so changes that the call makes to its arguments are lost. The parser
    therefore refuses a suite that passes a list, dict or set to a call as a variable and reads the variable afterwards.

    Args:
        suite: Python source: `assert` statements as in MBPP, or a `def check(candidate)` that
            contains them as in HumanEval.
        entry_point: The solution's function. Needed if the suite does not call its `check`, or if the function has the
            name of a builtin.

    Raises:
        ValueError: There is no assertion, or a statement is not supported. The message names the line, the reason and
            the fix.

    >>> suite = "def check(f): assert f(1) == 2; assert f(2) == 3"
    >>> [assertion.calls[0].args for assertion in parse_assertions(suite, "successor")]
    [(1,), (2,)]
    """
    return _Parser(suite, entry_point).parse()


_REASONS: dict[type[ast.stmt], tuple[str, str]] = {
    ast.Expr: ("the effect of a bare expression is not visible outside the sandbox", "assert the function's result"),
    ast.For: ("a loop is not supported", "write one assertion per iteration"),
    ast.Try: ("an expected exception is not supported", "leave the case out"),
    ast.ClassDef: ("a class is not supported", "write its checks as `assert` statements"),
    ast.FunctionDef: (
        "a function is not supported",
        "write its assertions outside it, or in one `def check(candidate):`",
    ),
}
_OTHER = ("this statement is not supported", "use only assertions, imports, and constants assigned to names")
_WRITE_VALUE = "write its value instead"


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1] + "…"


class _Alias(str):
    """A full name: of an imported object, or of the function that is passed to `check` as its argument."""


class _Parser:
    """Reads a suite in the order in which Python would run it."""

    def __init__(self, suite: str, entry_point: str | None) -> None:
        self.suite, self.entry_point = suite, entry_point
        self.assertions: list[Assertion] = []
        self.scope: dict[str, Any] = {}  # name -> constant or _Alias
        self.solution = {entry_point}  # functions of the solution, even if they have the name of a builtin
        self.check: ast.FunctionDef | None = None
        self.checked = False
        self.current: ast.stmt | None = None  # the statement being parsed
        self.calls: list[Call] = []  # the calls of the statement
        self.read: set[int] = set()  # identities of the mutable values that the statement reads from variables
        self.passed: dict[int, Any] = {}  # mutable values passed to any call, by identity: the call could change them
        self.cost = 0

    def parse(self) -> list[Assertion]:
        if len(self.suite) > MAX_SIZE:
            self.refuse(f"it has more than {MAX_SIZE} characters", "remove some tests")
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
        self.current = None
        if self.check and not self.checked:
            if not self.entry_point:
                self.refuse("nothing calls its `check`", "give entry_point, or end it with `check(the_function)`")
            self.run_check(self.check, self.entry_point)
        if not self.assertions:
            self.refuse("it has no assertion", "write at least one `assert` about a result of the solution")
        return self.assertions

    def refuse(self, reason: str, fix: str) -> NoReturn:
        place = (
            f"Line {self.current.lineno}, `{self.source(self.current)}`" if self.current else "The suite of assertions"
        )
        raise ValueError(f"{place}: {reason}; {fix}.")

    def source(self, node: ast.AST) -> str:
        return _excerpt(ast.get_source_segment(self.suite, node) or "")

    def statement(self, statement: ast.stmt) -> None:
        self.current, self.calls, self.read = statement, [], set()
        match statement:
            case ast.Assert(test=test):
                self.assertion(test)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.scope[name] = self.constant(value)
            case ast.ImportFrom(module=module, names=[ast.alias(name="*")]) if module not in ("typing", "solution"):
                self.refuse("it may import functions that are then called", "name what is imported")
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
        if self.read & self.passed.keys():
            self.refuse("it reads a variable that a call could have changed", "write its value instead")

    def assertion(self, test: ast.expr) -> None:
        if isinstance(test, ast.Tuple) and test.elts:
            self.refuse("a tuple is always true", "write `assert test, message` without parentheses")
        tree = self.expression(test)
        if self.calls:
            self.assertions.append(Assertion(tuple(self.calls), tree))
        elif not (isinstance(test, ast.Constant) and test.value is True):
            self.refuse("it calls no function of the solution", "call one, or name it in entry_point")

    def run_check(self, check: ast.FunctionDef, name: str) -> None:
        """Parse the body of `check`. The parameter of `check` refers to the function `name`."""
        if self.entry_point not in (None, name):
            self.refuse(f"{name} is not the entry point {self.entry_point}", "check the solution's function")
        outer, self.scope = self.scope, {**self.scope, check.args.args[0].arg: _Alias(name)}
        self.solution.add(name)
        self.check, self.checked = None, True  # `check` cannot call itself
        for statement in check.body:
            self.statement(statement)
        self.scope, self.check = outer, check

    def charge(self, *values: Any, known: frozenset[type] = EXPRESSION_TYPES) -> None:
        """Check the size of constants, alone and in total."""
        try:
            self.cost += sum(measure(value, known) for value in values)
        except (TypeError, ValueError) as error:
            self.refuse(str(error), "use only small values of builtin types")
        if self.cost > MAX_COST:
            self.refuse(
                f"the total size of the constants is more than {MAX_COST}", "shorten them, or remove some tests"
            )

    def constant(self, node: ast.expr) -> Any:
        value = self.expression(node)
        if isinstance(value, (Operation, CallResult)):
            self.refuse(f"`{self.source(node)}` uses the result of a call, but must be a constant", _WRITE_VALUE)
        try:
            measure(value, CONSTANT_TYPES)
        except TypeError:
            self.refuse(f"`{self.source(node)}` is an iterator, which can be read only once", _WRITE_VALUE)
        return value

    def expression(self, node: ast.expr) -> Any:
        """The value of an expression of constants, or the tree of any other expression."""
        match node:
            case ast.Constant(value=value):
                self.charge(value)
                return value
            case ast.Name(id=name) if not isinstance(self.scope.get(name, _Alias()), _Alias):
                self.charge(self.scope[name])
                self.read |= _mutable(self.scope[name]).keys()
                return self.scope[name]
            case ast.Name() | ast.Attribute() if self.full_name(node) in NAMES:
                return NAMES[self.full_name(node)]
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
        return self.refuse(f"`{self.source(node)}` is not supported", _WRITE_VALUE)

    def apply(self, operation: str, operands: Iterable[Any], keywords: Iterable[tuple[str, Any]] = ()) -> Any:
        if operation not in ("And", "Or", *OPERATIONS):
            self.refuse(f"the operator {operation} is not supported", _WRITE_VALUE)
        node = Operation(operation, tuple(operands), tuple(keywords))
        if any(isinstance(part, (Operation, CallResult)) for part in (*node.operands, *dict(node.keywords).values())):
            return node
        try:
            value = evaluate(node, ())
        except Exception as error:
            reason = f"computing a constant raises {type(error).__name__}: {_excerpt(str(error))}"
            self.refuse(reason, "correct it, or remove it")
        self.charge(value)
        return value

    def comparison(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        singletons = [side for side in (left, right) if side is None or isinstance(side, (bool, type))]
        if isinstance(op, (ast.Is, ast.IsNot)) and not singletons:
            self.refuse("`is` compares identities, which results from a sandbox do not have", "write `==`")
        return self.apply(type(op).__name__, [left, right])

    def full_name(self, node: ast.expr) -> str:
        """The full name of the object that a name or dotted name refers to, such as `math.sqrt`.

        Imports and the parameter of `check` are resolved. Empty for a variable and for any other expression.
        """
        if isinstance(node, ast.Attribute):
            base = self.full_name(node.value)
            return base and f"{base}.{node.attr}"
        known = self.scope.get(node.id, _Alias(node.id)) if isinstance(node, ast.Name) else ""
        return known if isinstance(known, _Alias) else ""

    def call(self, node: ast.Call) -> Any:
        name = self.full_name(node.func)
        if name in self.solution or (name and "." not in name and not hasattr(builtins, name)):
            return self.solution_call(name, node)
        if name not in FUNCTIONS:
            fix = f"{_WRITE_VALUE}, or give entry_point if this is the solution's function"
            self.refuse(f"the function `{self.source(node.func)}` is not supported", fix)
        for keyword in node.keywords:
            if keyword.arg not in KEYWORDS:
                self.refuse(f"`{self.source(keyword)}` is not supported", _WRITE_VALUE)
        keywords = [(str(keyword.arg), self.expression(keyword.value)) for keyword in node.keywords]
        operands = [self.expression(argument) for argument in node.args]
        self.limit_items(name, operands)
        return self.apply(name, operands, keywords)

    def limit_items(self, name: str, operands: list[Any]) -> None:
        """If a function reads only the first items of a call's result, set the number of items in the call."""
        match name, operands:
            case "next", [CallResult(index) | Operation("iter", (CallResult(index),)), *_]:
                items: Any = 1
            case "itertools.islice", [CallResult(index), items] | [CallResult(index), _, items, *_]:
                pass
            case _:
                return
        if isinstance(items, int):
            self.calls[index] = replace(self.calls[index], items=items)

    def solution_call(self, name: str, node: ast.Call) -> CallResult:
        if not all(keyword.arg for keyword in node.keywords):
            self.refuse("`**` in a call is not supported", "write the keywords one by one")
        read = self.read.copy()
        args = tuple(map(self.constant, node.args))
        kwargs = {str(keyword.arg): self.constant(keyword.value) for keyword in node.keywords}
        self.read = read  # passing a variable to a call does not count as reading it
        self.charge(args, kwargs, known=PLAIN_TYPES)
        self.passed |= _mutable((args, kwargs))
        self.calls.append(Call(name, *copy.deepcopy((args, kwargs))))
        return CallResult(len(self.calls) - 1)


def _mutable(value: Any) -> dict[int, Any]:
    """The lists, dicts and sets in a value, by identity."""
    found: dict[int, Any] = {}
    below = [value]
    while below:
        part = below.pop()
        if isinstance(part, (list, dict, set)):
            found[id(part)] = part
        if isinstance(part, (list, tuple, dict)):
            below += part.values() if isinstance(part, dict) else part
    return found
