"""Suites that are Python code which cannot be split into single calls: test functions, and scripts with helpers.

Such a suite runs in a box of its own, with the layers of any other box. The solution runs in a second box. This process
passes the calls of the suite to the solution, and the results back, as text that it does not read. The verdict comes
from the box of the suite, so the expected values never enter the box of the solution.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..sandbox.box import Box, Outcome


def _source(*names: str) -> str:
    return "\n".join(Path(__file__).with_name(f"{name}.py").read_text() for name in names)


_SOLUTION = _source("messages", "server")
_SUITE = _source("messages", "stand_ins", "tester")
_OVER = b"\n"
# Modules that a suite could use only in the process of the solution.
_OUT_OF_REACH = ("asyncio.", "io.", "mock.", "tempfile.", "unittest.mock.")
# Files and variables of a suite, which the sandbox of the solution does not have.
_NOT_SHARED = ("open", "os.environ", "os.makedirs", "os.mkdir", "os.putenv")
# What a class of a suite may contain to be copied into the box of the solution.
_METHODS_OF_DATA = frozenset("__init__ __post_init__ __eq__ __lt__ __hash__ __repr__ __str__".split())
_DEFAULTS = (None, False, 0, 1, "", ...)  # True and -1 are among them


@dataclass(frozen=True)
class Script:
    """A suite that is Python code.

    Attributes:
        source: The code.
        entry_point: The name of the function that `check` tests, if the suite has a `check` that it does not call.
        tests: The names of its test functions, such as `test_small` or `TestAdd.test_small`. Empty if it has none.
            These are the ones that the source shows, until the suite has run without a solution.
    """

    source: str
    entry_point: str | None
    tests: tuple[str, ...]
    may_have_tests: bool  # whether anything in it has the name of a test that the suite does not call itself
    called: frozenset[str]  # the functions that it calls itself, which are no tests
    calls_check: bool  # whether `check` must be called with the entry point
    names: frozenset[str]  # what it imports from `solution`
    undefined: frozenset[str]  # what it uses and does not define: names of the solution, or of Python
    classes: tuple[str, ...]  # its classes that only hold data, such as `ListNode`
    classes_source: str  # their code, with the imports that it may need


@dataclass(frozen=True)
class ScriptTest:
    """One test of a suite: a test function, or a case of a script.

    Attributes:
        script: The suite.
        do: `"test"`, `"cases"` or `"whole"`, as in tester.py.
        name: The test function, or the function of the solution that the case calls.
    """

    script: Script
    do: str
    name: str

    @property
    def functions(self) -> list[str]:
        """The names of the solution that the test needs."""
        if self.do == "test":
            return sorted(self.script.names or self.script.undefined)
        return [self.name.removeprefix("Solution().").split(".")[0].removesuffix("()")]


def read_script(source: str, entry_point: str | None, box: Box) -> list[ScriptTest]:
    """Read the tests of a suite. Its own code runs once in the box, without a solution.

    Raises:
        ValueError: The suite is not Python, cannot run in the box, or has no test.
    """
    return list(_read(source, entry_point, box))


@functools.lru_cache(maxsize=256)
def _read(source: str, entry_point: str | None, box: Box) -> tuple[ScriptTest, ...]:
    script = _parse(source, entry_point)
    if box.backend == "e2b":
        raise ValueError("the sandbox e2b cannot run it; write assert statements, or use another sandbox")
    found, text = _answer(box, script, "check" if script.may_have_tests else "list")
    if found == "refused" and script.classes:  # its classes may need more of the suite
        script = replace(script, classes=(), classes_source="")
        found, text = _answer(box, script, "check" if script.may_have_tests else "list")
    if found == "tests":
        script = replace(script, tests=tuple(text.split()))
        if not script.tests:
            found, text = _answer(box, script, "list")
    if found == "refused":
        hint = "; if this module is the program, write `solution`" if text.startswith("ModuleNotFoundError") else ""
        raise ValueError(f"its own code does not run in the sandbox, which has only the standard library: {text}{hint}")
    if script.tests:
        return tuple(ScriptTest(script, "test", name) for name in script.tests)
    if not text:
        raise ValueError("it never calls the solution; import the tested names from solution, or give entry_point")
    return tuple(ScriptTest(script, found, name) for name in text.split())


def _parse(source: str, entry_point: str | None) -> Script:
    try:
        tree = ast.parse(source, "suite")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is not Python, {type(error).__name__}: {error}") from None
    if any(isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) for node in ast.walk(tree)):
        raise ValueError("it asserts a tuple, which is always true; remove the parentheses after `assert`")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tests, test_cases = [], {"TestCase"}
    called = {call.func.id for call in _calls(tree) if isinstance(call.func, ast.Name) and call.args}
    for node in tree.body:
        if isinstance(node, functions) and node.name.startswith("test") and node.name not in called:
            tests.append(node.name)
        elif isinstance(node, ast.ClassDef):
            bases = {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
            if test_cases & bases:
                test_cases.add(node.name)
            if node.name.startswith("Test") or test_cases & bases:
                inside = [part.name for part in node.body if isinstance(part, functions)]
                tests += [f"{node.name}.{name}" for name in inside if name.startswith("test")]
    if not any(map(_can_fail, ast.walk(tree))):
        raise ValueError("it has no assertion; write at least one `assert` about a result of the solution")
    may_have_tests = any(
        isinstance(node, functions) and node.name.startswith("test") and node.name not in called
        for node in ast.walk(tree)
    )
    must_call_check = _must_call_check(tree) and not tests
    if must_call_check and entry_point is None:
        raise ValueError("nothing calls its `check`; give entry_point, or end it with `check(the_function)`")
    imports = [
        (f"{node.module}." if isinstance(node, ast.ImportFrom) else "", alias)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    for module, alias in imports:
        if f"{module}{alias.name}.".startswith(_OUT_OF_REACH):
            raise ValueError(f"it imports {module}{alias.name}, which cannot reach the solution in another sandbox")
    names = {alias.name for module, alias in imports if module == "solution." and alias.name != "*"}
    used = {_used_name(node) for node in ast.walk(tree)} - names
    if not_shared := next((name for name in _NOT_SHARED if name in used), None):
        raise ValueError(
            f"it uses {not_shared}, but the solution runs in another sandbox, with other files and variables"
        )
    modules = {alias.asname or alias.name for module, alias in imports if module + alias.name == "solution"}
    names |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and _only_holds_data(node)]
    parts = [*filter(_imports_library, tree.body), *classes] if classes else []
    return Script(
        source,
        entry_point,
        tuple(tests),
        may_have_tests,
        frozenset(called),
        must_call_check,
        frozenset(names),
        _undefined(tree),
        tuple(node.name for node in classes),
        ast.unparse(ast.Module(parts, [])),
    )


def _used_name(node: ast.AST) -> str:
    """The name of a called function, such as `open`, or of a member, such as `os.environ`; empty for other nodes."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _only_holds_data(node: ast.ClassDef) -> bool:
    """Whether the box of the solution may have this class: nothing in it can give an expected value away."""
    plain = (ast.Assign, ast.AnnAssign, ast.Pass)
    return (
        not any(getattr(base, "id", "") != "object" for base in node.bases)
        and all(
            (isinstance(part, ast.FunctionDef) and part.name in _METHODS_OF_DATA)
            or (isinstance(part, plain) and "__slots__" not in ast.unparse(part))
            or _is_docstring(part)
            for part in node.body
        )
        and all(constant in _DEFAULTS for constant in _constants(node))
    )


def _constants(node: ast.AST) -> Iterator[Any]:
    """The constants in the code, except those of annotations, docstrings and `__repr__`."""
    if isinstance(node, ast.Constant):
        yield node.value
    for name, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            is_shown = isinstance(part, ast.FunctionDef) and part.name in ("__repr__", "__str__")
            if isinstance(part, ast.AST) and name not in ("annotation", "returns") and not is_shown:
                yield from () if _is_docstring(part) else _constants(part)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports_library(node: ast.stmt) -> bool:
    """Whether a statement imports only from the standard library."""
    if isinstance(node, ast.ImportFrom):
        return not node.level and str(node.module).partition(".")[0] in sys.stdlib_module_names
    return isinstance(node, ast.Import) and all(
        alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names
    )


def _undefined(tree: ast.Module) -> frozenset[str]:
    """The names that a suite reads and never defines."""
    read: set[str] = set()
    defined: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
    return frozenset(read - defined - set(dir(builtins)))


def _can_fail(node: ast.AST) -> bool:
    """Whether a part of a suite can find that a solution is wrong."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return name.startswith("assert") or name in ("raises", "fail")
    return isinstance(node, (ast.Assert, ast.Raise))


def _must_call_check(tree: ast.Module) -> bool:
    """Whether the suite defines `check` and does not call it."""
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    return defined and not any(isinstance(call.func, ast.Name) and call.func.id == "check" for call in _calls(tree))


def _calls(tree: ast.Module) -> list[ast.Call]:
    """The calls that are statements of the suite itself."""
    return [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]


def _order(script: Script, **more: Any) -> dict[str, Any]:
    fixed = {"entry_point": script.entry_point, "check": script.calls_check, "tests": script.tests}
    sets = {"imported": sorted(script.names), "called": sorted(script.called)}
    return {"talk": {**fixed, **sets, **_classes(script), **more}}


def _classes(script: Script) -> dict[str, Any]:
    return {"classes": script.classes, "source": script.classes_source}


def _answer(box: Box, script: Script, do: str) -> tuple[str, str]:
    """The first word that the suite says, and the rest of its line."""
    with contextlib.closing(box.run(script.source, [_order(script, do=do)], talk=_SUITE)) as suite:
        next(suite)  # the box starts
        outcome = next(suite)
    if outcome.end != "said":
        raise ValueError(f"its own code ends without an answer ({outcome.end})")
    found, _, text = outcome.data.decode("ascii", "replace").strip().partition(" ")
    return found, text


def run_script(box: Box, program: str, tests: Sequence[ScriptTest], prelude: str = "") -> Generator[str, None, None]:
    """Run a solution on the tests of one suite.

    Args:
        box: The sandbox.
        program: The solution's source.
        tests: All tests that `read_script` returned.
        prelude: As in `Box.run`, for the solution.

    Yields:
        One status per test, a key of `rewards.shared.batch.REWARDS`. A test that is skipped or never calls the solution
        passes if another test calls it.

    Raises:
        BoxError: A box did not start.
    """
    script, do = tests[0].script, tests[0].do
    orders = [{"do": do, "test": test.name} for test in tests] if do == "test" else [{"do": do}]
    suite = box.run(script.source, [_order(script, **order) for order in orders], talk=_SUITE)
    solution = box.run(program, [{"talk": _classes(script)}] * len(orders), prelude, _SOLUTION)
    with contextlib.closing(suite), contextlib.closing(solution):
        next(suite), next(solution)  # both boxes start at the same time
        idle, is_called = 0, False
        for _ in orders:
            for status in _verdicts(suite, solution, len(tests) // len(orders)):
                if status == "idle":
                    idle += 1
                    continue
                is_called = True
                yield from ["ok"] * idle
                idle = 0
                yield status
        yield from ["ok" if is_called else "no_gold"] * idle


def _verdicts(
    suite: Generator[Outcome, bytes | None, None], solution: Generator[Outcome, bytes | None, None], count: int
) -> Generator[str, None, None]:
    """Let a child of the suite and a child of the solution converse. Yields `count` statuses, perhaps `idle`.

    If the suite has more verdicts, because it has cases that nobody listed, the last status stands for all of them.
    """
    said, ready = next(suite), next(solution)
    given, last = 0, ""
    while said.end == "said":
        if not said.data.startswith(b"ask "):
            verdict = said.data.decode("ascii", "replace").split()[0]
            given += 1
            if given < count:
                yield verdict
            elif last in ("", "ok", "idle"):
                last = verdict
            said = suite.send(_OVER)
        elif ready.end == "said":
            ready = solution.send(said.data.removeprefix(b"ask "))
            said = suite.send(ready.data.partition(b"\n")[0] + b"\n" if ready.end == "said" else b"gone\n")
        else:
            said = suite.send(b"gone\n")
    end = said.end if ready.end == "said" else ready.end
    while ready.end == "said":
        ready = solution.send(_OVER)
    if last:
        yield last
    for _ in range(given, count):
        yield "timeout" if end == "timeout" else "died"
