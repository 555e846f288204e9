"""The forms in which data sets write the tests of a program. Each is turned into a form of the reward `code`.

A form is recognised by the keys and types of a row's value, never by the name of the data set.
"""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ...shared.literals import read_literal

# Columns and keys of rows whose output cannot be compared with one text, as in open-r1/codeforces, and why not.
_JUDGES = {
    "checker": "a checker accepts several outputs",
    "generated_checker": "a checker accepts several outputs",
    "interaction_format": "the program must talk to a judge",
}
# columns read beside `tests`
NEIGHBOURS = ("metadata", "fn_name", "entry_point", "language", "test_imports", "test_setup_code", *_JUDGES)
FORMS = (
    'an object with "type" and "cases", with "inputs" and "outputs", or with "test_cases", a list of objects with '
    '"input" and "output", assert statements, or a Python file with test functions'
)

_MOST_DIGITS = 4300  # `int` reads no longer text
_PYTHON = re.compile(r"(?:py|python|pypy)?[ -]?[\d.]*")
_CODE_KEYS = ("functional", "pytest", "test_code")  # of objects whose tests are Python code
_CALL_TYPES = ("functional", "function_call", "call")
_STDIN_TYPES = ("stdin", "stdin_stdout", "stdio")


@dataclass(frozen=True)
class Suite:
    """The tests of one row in a form that the reward `code` runs.

    Attributes:
        form: The name of the form in which the row had the tests.
        kind: `"stdin"`, `"call"` or `"python"`.
        tests: An object as in the reward's docstring, or Python code.
    """

    form: str
    kind: str
    tests: dict[str, Any] | str


def read_suite(tests: Any, neighbours: Mapping[str, Any] | None = None) -> Suite:
    """Read the tests of one row, in any of the forms.

    Args:
        tests: The row's tests.
        neighbours: The row's other columns. Only those in `NEIGHBOURS` are read.

    Raises:
        ValueError: The form is unknown, or the tests are not for Python.

    >>> read_suite('{"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}').tests
    {'type': 'call', 'fn_name': 'add', 'cases': [{'args': [1, 2], 'expected': 3}]}
    """
    beside = {name: value for name, value in (neighbours or {}).items() if name in NEIGHBOURS and value is not None}
    _check_language(beside.get("language"))
    _check_judge(beside)
    tests = _decoded("" if tests is None else tests)
    if isinstance(tests, str):
        return _python(tests, beside)
    if isinstance(tests, Mapping):
        suite = _object(dict(tests), beside)
        if isinstance(suite.tests, dict) and tests.get("tol") is not None:
            suite.tests["tol"] = tests["tol"]
        return suite
    if isinstance(tests, Sequence) and tests:
        if all(isinstance(line, str) for line in tests):
            return _python("\n".join(map(_dedented, tests)), beside, form="a list of assert statements")
        if all(isinstance(case, Mapping) for case in tests):
            return _case_list([dict(case) for case in tests], beside)
    raise ValueError(f"tests={_excerpt(tests)} have an unknown form; write {FORMS}")


def json_text(value: Any) -> str:
    """JSON text of plain data. Unlike `json.dumps`, it writes integers of any length.

    Raises:
        TypeError: JSON cannot write the value without a change of its types.

    >>> len(json_text(10**5000))
    5001
    """
    if type(value) is int:
        return f"{Decimal(value):f}"
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key of JSON is a text")
        return "{" + ", ".join(f"{json.dumps(key)}: {json_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple):
        raise TypeError("JSON has no tuples")
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value)


def _python(code: str, beside: Mapping[str, Any], form: str | None = None) -> Suite:
    if not code.strip():
        raise ValueError("tests are empty; write at least one test")
    if re.fullmatch(r"[A-Za-z0-9+/=_-]{16,}", code.strip()):
        raise ValueError(
            f"tests={_excerpt(code)} look like compressed data, which is never unpickled because unpickling runs "
            "code; use the column with the public tests (public_test_cases), or decode the data set once"
        )
    imports = beside.get("test_imports") or []
    before = [*([imports] if isinstance(imports, str) else imports), beside.get("test_setup_code") or ""]
    if form is None:
        form = "test functions" if "def test" in code else "check" if "def check(" in code else "a Python script"
    return Suite(form, "python", "\n".join([*filter(None, before), _dedented(code)]))


def _dedented(code: str) -> str:
    """Code whose first line is indented, without this indentation. Other code may have texts with blank lines."""
    return textwrap.dedent(code) if re.match(r"(?:[ \t]*\n)*[ \t]", code) else code


def _object(tests: dict[str, Any], beside: Mapping[str, Any]) -> Suite:
    _check_language(tests.get("language"))
    _check_judge(tests)
    if tests.get("test_cases") is not None:
        inner = read_suite(tests["test_cases"], {**beside, **tests})
        return Suite("verification_info with test_cases", inner.kind, inner.tests)
    if tests.get("cases") is not None:
        given = {name: value for name, value in tests.items() if value is not None}  # a table fills gaps with None
        return Suite("the project's own form", str(tests.get("type")), given)
    if isinstance(tests.get("inputs"), str) and isinstance(tests.get("outputs"), str):
        tests |= {name: _texts(tests[name]) for name in ("inputs", "outputs")}
    for inputs, outputs in (("inputs", "outputs"), ("input", "output")):
        if isinstance(tests.get(inputs), list) and isinstance(tests.get(outputs), list):
            pairs = list(zip(tests[inputs], tests[outputs], strict=False))
            if len(tests[inputs]) != len(tests[outputs]):
                raise ValueError(f"tests have {len(tests[inputs])} {inputs}, but {len(tests[outputs])} {outputs}")
            kind = tests.get("type") or ""
            if isinstance(kind, list) and kind == kind[:1] * len(pairs):  # a column of each key
                kind = kind[0]
            function = _checked_function(str(kind), _function(tests, beside))
            if function is not None:
                pairs = [(_with_integer_keys(given), _with_integer_keys(wanted)) for given, wanted in pairs]
            return _suite("inputs and outputs", pairs, function)
    if {"input", "output"} <= tests.keys():
        return _case_list([tests], beside)
    if named := [name for name in _CODE_KEYS if isinstance(tests.get(name), str)]:
        return _code_of_object(tests, named[0], beside)
    raise ValueError(
        f"tests with the keys {', '.join(map(str, tests)) or '(none)'} have an unknown form; write {FORMS}"
    )


def _code_of_object(tests: dict[str, Any], name: str, beside: Mapping[str, Any]) -> Suite:
    """Python code under a key of an object, as code-r1 and Skywork-OR1 write it, with what stands before and after."""
    lines = [tests.get("import_prefix") or "", tests[name]]
    if tests.get("entry_point") and not re.search(r"^check\(", tests[name], re.MULTILINE):
        lines.append(f"check({tests['entry_point']})")
    return _python("\n".join(lines), beside, form=f"an object with {name}")


def _case_list(cases: list[dict[str, Any]], beside: Mapping[str, Any]) -> Suite:
    """Cases as LiveCodeBench and open-r1 write them: each has its own type and its own input and output."""
    for case in cases:
        if not {"input", "output"} <= case.keys():
            raise ValueError(f"a case needs 'input' and 'output': {_excerpt(case)}")
        _check_language(case.get("language"))
    kinds = {str(case.get("testtype") or case.get("type") or "") for case in cases}
    names = {name for case in cases if (name := _function(case))}
    if len(kinds) > 1 or len(names) > 1:
        raise ValueError(f"the cases of one row differ in type or function ({', '.join(sorted(kinds | names))})")
    kind = kinds.pop()
    function = _checked_function(kind, names.pop() if names else _function(beside))
    if not kind and function is None and beside.get("entry_point"):
        raise ValueError(
            f"cases without a type stand beside entry_point={beside['entry_point']!r}, so they are calls written as "
            "text, and not standard input; use the column whose tests are Python code"
        )
    form = "LiveCodeBench's form" if "testtype" in cases[0] else "a list of cases"
    return _suite(form, [(case["input"], case["output"]) for case in cases], function)


def _checked_function(kind: str, function: str | None) -> str | None:
    """The name of the function that cases of a type call; None for cases of standard input and output."""
    if kind in _STDIN_TYPES:
        return None
    if kind and kind not in _CALL_TYPES:
        raise ValueError(f"a case has the type {kind!r}; write one of {', '.join(_STDIN_TYPES + _CALL_TYPES)}")
    if kind and function is None:
        raise ValueError(
            f"cases of the type {kind!r} need the function's name; keep the column metadata with func_name, or "
            "write fn_name in each case"
        )
    return function


def _function(*places: Mapping[str, Any]) -> str | None:
    """The name of the tested function: `fn_name`, or `func_name` in `metadata`, which may be JSON text."""
    for place in places:
        metadata = place.get("metadata")
        if isinstance(metadata, str):
            with contextlib.suppress(ValueError):  # a column of this name may hold anything
                metadata = read_literal(metadata)
        named = [place.get("fn_name"), place.get("func_name")]
        if isinstance(metadata, Mapping):
            named += [metadata.get("func_name"), metadata.get("fn_name")]
        for name in named:
            if isinstance(name, str) and name.strip():
                return name.strip().removeprefix("Solution.").removeprefix("Solution().")
    return None


def _suite(form: str, pairs: Sequence[tuple[Any, Any]], function: str | None) -> Suite:
    if not pairs:
        raise ValueError("tests have no case; write at least one")
    if function is None:
        cases = [{"input": _stdin_text(given), "output": _stdin_text(wanted)} for given, wanted in pairs]
        return Suite(form, "stdin", {"type": "stdin", "cases": cases})
    if not function.isidentifier():
        raise ValueError(
            f"the tests call {function!r}, but can only call a function or a method of the class Solution; write its "
            "name, or leave these rows out"
        )
    calls = [_call_case(given, wanted) for given, wanted in pairs]
    if all(isinstance(wanted, list) and len(wanted) == 1 for _, wanted in pairs):
        # Some sets wrap each result in a list of one. The results of a function that returns such lists look the same.
        calls = [case | {"or": case["expected"][0]} for case in calls]
    return Suite(form, "call", {"type": "call", "fn_name": function, "cases": calls})


def _call_case(given: Any, wanted: Any) -> dict[str, Any]:
    """A case of a call. Input as text has one JSON value per line, and then the output is JSON text too."""
    if isinstance(given, str):
        if not isinstance(wanted, str):
            raise ValueError(f"the input of a call is text, but its output is not: {_excerpt(wanted)}")
        return {"args": [_parsed(line) for line in given.split("\n") if line.strip()], "expected": _parsed(wanted)}
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"the input of a call is not a list of arguments: {_excerpt(given)}")
    return {"args": list(given), "expected": wanted}


def _with_integer_keys(value: Any) -> Any:
    """The value, with integers as the keys of a dict if all its keys are texts of integers.

    JSON turns such keys into text, and the graders of APPS and TACO turn them back.
    """
    if isinstance(value, list):
        return [_with_integer_keys(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    are_integers = all(isinstance(key, str) and re.fullmatch(r"0|-?[1-9]\d{0,17}", key, re.ASCII) for key in value)
    return {int(key) if are_integers else key: _with_integer_keys(part) for key, part in value.items()}


def _stdin_text(part: Any) -> str:
    """Standard input or output as text. Some sets write a list of lines, or a number."""
    if isinstance(part, (list, tuple)):
        return "\n".join(_stdin_text(line).removesuffix("\n") for line in part)
    if not isinstance(part, (str, int, float)):
        raise ValueError(f"an input or output of a program is neither text nor a list of lines: {_excerpt(part)}")
    return part if isinstance(part, str) else str(part) if isinstance(part, bool) else json_text(part)


def _plain(value: Any) -> Any:
    """The value, with lists in place of the arrays of numpy that tables give."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _decoded(tests: Any) -> Any:
    """The tests, out of JSON text if they are JSON text, which some sets encode twice."""
    if not isinstance(tests, str):
        return _plain(tests)
    if tests.lstrip().startswith(("{", "[")):
        return _parsed(tests)
    if tests.lstrip().startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):  # a suite of Python that begins with a docstring
            inner = json.loads(tests)
            return _parsed(inner) if inner.lstrip().startswith(("{", "[")) else inner
    return tests


def _texts(text: str) -> list[str]:
    """The inputs or outputs of several cases, if the text is JSON of a list of texts. Otherwise of one case."""
    with contextlib.suppress(ValueError, RecursionError):
        texts = json.loads(text)
        if isinstance(texts, list) and texts and all(isinstance(part, str) for part in texts):
            return texts
    return [text]


def _parsed(text: str) -> Any:
    try:
        return read_literal(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tests are not valid JSON: {error}: {_excerpt(text)}") from None


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS else int(Decimal(digits))


def _check_language(language: Any) -> None:
    if language is not None and not _PYTHON.fullmatch(str(language).lower()):
        raise ValueError(f"tests are for the language {language!r}, but only Python runs; leave these rows out")


def _check_judge(place: Mapping[str, Any]) -> None:
    for name, reason in _JUDGES.items():
        if isinstance(place.get(name), str) and place[name].strip():
            raise ValueError(
                f"{name} says that {reason}, but an output is compared with one text; leave these rows out, or remove "
                f"{name} to compare the text all the same"
            )


def _excerpt(value: Any) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 80 else text[:79] + "…")
