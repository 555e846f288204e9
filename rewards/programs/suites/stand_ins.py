"""Small stand-ins for pytest and numpy, which the box of a suite does not have. The source of this file is sent there.

They hold what suites of tests in data sets use. A suite that uses more is refused with the name of what is missing.
"""

import math
import re
import sys
import types


class NotJudgedError(BaseException):
    """The suite itself cannot be run, so it says nothing about the solution."""


def install():
    """Make `import pytest` and `import numpy` find the stand-ins."""
    for name, members in (("pytest", _PYTEST), ("numpy.testing", _NUMPY_TESTING), ("numpy", _NUMPY)):
        sys.modules[name] = _StandIn(name)
        vars(sys.modules[name]).update(members)
    vars(sys.modules[name]).update(testing=sys.modules["numpy.testing"])  # the last name is numpy


class _StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotJudgedError(f"{self.__name__}.{name} is not supported")


class _Raised:
    """What `with pytest.raises(...) as info` gives."""

    value: BaseException

    @property
    def type(self):
        return type(self.value)

    def match(self, pattern):
        assert re.search(pattern, str(self.value)), f"{self.value} does not match {pattern}"


class _Raises:
    def __init__(self, kinds, match):
        self.kinds, self.match, self.info = kinds, match, _Raised()

    def __enter__(self):
        return self.info

    def __exit__(self, kind, error, traceback):
        assert kind is not None, f"{self.kinds} was not raised"
        if not issubclass(kind, self.kinds):
            return False
        self.info.value = error
        if self.match is not None:
            self.info.match(self.match)
        return True


def _raises(expected_exception, *call, match=None, **kwargs):
    manager = _Raises(expected_exception, match)
    if not call:
        return manager
    with manager as info:
        call[0](*call[1:], **kwargs)
    return info


class _Approx:
    """Equal to numbers within a tolerance, also inside lists, tuples and dicts."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected, rel=None, abs=None, nan_ok=False):
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, value):
        return self._near(value, self.expected)

    def _near(self, value, expected):
        if isinstance(expected, (list, tuple)):
            same = isinstance(value, (list, tuple)) and len(value) == len(expected)
            return same and all(map(self._near, value, expected))
        if isinstance(expected, dict):
            same = isinstance(value, dict) and value.keys() == expected.keys()
            return same and all(self._near(value[key], expected[key]) for key in expected)
        if not _is_number(value) or not _is_number(expected):
            return value == expected
        if self.nan_ok and value != value and expected != expected:
            return True
        rel = (1e-6 if self.abs is None else 0.0) if self.rel is None else self.rel
        tolerance = max(rel * abs(expected), 1e-12 if self.abs is None else self.abs)
        return value == expected or bool(abs(value - expected) <= tolerance < math.inf)


def _is_number(value):
    return isinstance(value, (int, float, complex)) and not isinstance(value, bool)


class _Mark:
    """`pytest.mark`: `parametrize`, `skipif` without effect, and marks that change nothing."""

    def __getattr__(self, name):
        if name == "parametrize":
            return _parametrize
        if name == "skipif":
            return _skipif
        if name in ("skip", "xfail", "usefixtures"):
            raise NotJudgedError(f"pytest.mark.{name} is not supported")
        return _decorator


def _decorator(*given, **options):
    """A decorator that changes nothing, with or without arguments."""
    return given[0] if len(given) == 1 and callable(given[0]) and not options else lambda function: function


def _skipif(condition, reason=""):
    if isinstance(condition, str) or condition:
        raise NotJudgedError(f"pytest.mark.skipif, which skips a test: {reason}")
    return _decorator


def _parametrize(argnames, argvalues, ids=None, **options):
    names = [name.strip() for name in argnames.split(",")] if isinstance(argnames, str) else list(argnames)
    rows = []
    for value in argvalues:
        value = value.values if isinstance(value, _Param) else value if len(names) > 1 else (value,)
        rows.append(dict(zip(names, value, strict=True)))

    def mark(function):
        function.parameters = [  # the last decorator varies fastest, as in pytest
            row | before for before in getattr(function, "parameters", [{}]) for row in rows
        ]
        return function

    return mark


class _Param:
    def __init__(self, *values, id=None, marks=()):
        self.values = values


def _fixture(*given, autouse=False, **options):
    def mark(function):
        function.is_fixture, function.autouse = True, autouse
        return function

    return mark(given[0]) if given and callable(given[0]) else mark


def _skip(reason=""):
    raise NotJudgedError(f"pytest.skip: {reason}")


def _fail(reason=""):
    raise AssertionError(reason)


def _near(value, expected, rtol, atol):
    """Whether numbers, or lists of equal length with numbers, are near as `numpy.allclose` defines it.

    Unlike in numpy, a list is never near a number: an empty list would be near every number.
    """
    if isinstance(value, (list, tuple)) and isinstance(expected, (list, tuple)):
        same = len(value) == len(expected)
        return same and all(_near(a, b, rtol, atol) for a, b in zip(value, expected, strict=True))
    if not isinstance(value, (int, float, complex)) or not isinstance(expected, (int, float, complex)):
        raise TypeError(f"{type(value).__name__} and {type(expected).__name__} are not numbers")
    return value == expected or bool(abs(value - expected) <= atol + rtol * abs(expected) < math.inf)


def _assert_allclose(actual, desired, rtol=1e-07, atol=0, **options):
    assert _near(actual, desired, rtol, atol), f"{actual} is not near {desired}"


def _allclose(value, expected, rtol=1e-05, atol=1e-08, equal_nan=False):
    return _near(value, expected, rtol, atol)


class _Array:
    """No value has this type: results of a solution are plain data."""


_PYTEST = {
    "raises": _raises,
    "approx": _Approx,
    "mark": _Mark(),
    "param": _Param,
    "fixture": _fixture,
    "skip": _skip,
    "fail": _fail,
    "main": lambda *given, **options: 0,
}
_NUMPY_TESTING = {"assert_allclose": _assert_allclose}
_NUMPY = {
    "allclose": _allclose,
    "isclose": _allclose,
    "ndarray": _Array,
    "float32": _Array,
    "float64": _Array,
    "isnan": math.isnan,
    "isinf": math.isinf,
    "inf": math.inf,
    "nan": math.nan,
    "pi": math.pi,
    "e": math.e,
}
