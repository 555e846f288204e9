"""Suites of assertions: the calls for the sandbox, the verdict on their results, unsupported statements and limits."""

import array
import collections
import copy
import itertools
import math
import pickle
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pace import cpu_limit
from rewards.programs import wire
from rewards.programs.assertions import MAX_EXCERPT, Assertion, Call, parse_assertions
from rewards.programs.expressions import MAX_BITS, MAX_DEPTH, MAX_SIZE

NAN = float("nan")


def one(suite, entry_point=None):
    (assertion,) = parse_assertions(suite, entry_point)
    return assertion


def refusal(suite, entry_point=None):
    with pytest.raises(ValueError) as caught:
        parse_assertions(suite, entry_point)
    assert type(caught.value) is ValueError  # not a subclass such as UnicodeError, which would be an unhandled error
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    return message


def run(suite, solution, entry_point=None):
    """The verdict on a suite: parse it, make the calls on copies of the arguments, and check the results."""
    verdicts = []
    for assertion in parse_assertions(suite, entry_point):
        try:
            values = [solution[call.function](*call.args, **call.kwargs) for call in copy.deepcopy(assertion.calls)]
        except Exception:
            return False
        verdicts.append(assertion.holds(values))
    return all(verdicts)


def truth(suite, solution, end=""):
    """Python's own verdict."""
    try:
        exec(suite + end, dict(solution))
    except Exception:
        return False
    return True


# The calls, and the verdict on their results.


@pytest.mark.parametrize(
    ("assertion", "good", "bad"),
    [
        ("f(1) == 3", [3, 3.0], [4, "3", None, [3], NAN]),
        ("(f(1)) == (3)", [3], [4]),
        ("3 == f(1)", [3], [4]),
        ("f(1) != 3", [4, "3", None], [3]),
        ("f(1) < 3", [2, -math.inf], [3, NAN, "2", None, 1j]),
        ("f(1) <= 3", [3], [4]),
        ("f(1) > 3", [4], [3]),
        ("f(1) >= 3", [3], [2]),
        ("1 < f(1) <= 3", [2, 3], [1, 4, "2"]),
        ("1 < 2 < f(1)", [3], [2]),
        ("f(1)", [1, "a", [0]], [0, "", [], None, 0.0]),
        ("not f(1)", [0, "", None], [1, [0]]),
        ("f(1) is None", [None], [0, False]),
        ("f(1) is not None", [0, False], [None]),
        ("f(1) is True", [True], [1, False]),
        ("f(1) is False", [False], [0, None]),
        ("f(1) == True", [True, 1], [False, 2, "True"]),
        ("f(1) == None", [None], [0]),
        ("f(1) in [3, 4]", [3, 4], [5, "3"]),
        ("f(1) in (3, 4)", [3], [5]),
        ("f(1) in {3, 4}", [3], [5, [3], {}]),
        ("f(1) in 'abc'", ["bc", ""], ["d", 1]),
        ("f(1) in {'a': 1}", ["a"], [1]),
        ("f(1) in range(3)", [2], [3, "2"]),
        ("f(1) not in [3]", [4], [3]),
        ("3 in f(1)", [[3], {3}, {3: 4}], [[4], 3, "3"]),
        ("f(1) == 3, f'{undefined}' + g(1)", [3], [4]),
        ("f(1) == 3 and f(1) < 4", [3], [4]),
        ("f(1) == 3 or 0 or f(1) == 4", [3, 4], [5]),
        ("not (f(1) == 3 or f(1) == 4)", [5], [3, 4]),
        ("abs(f(1) - 1.5) < 1e-6", [1.5, 1.5000001], [1.51, "1.5", None, NAN, [1.5], 10**400]),
        ("abs(f(1) - 1.5) < 10 ** -6", [1.5], [1.51]),
        ("round(f(1), 2) == 1.23", [1.2345, 1.23], [1.24, "1.23", 1j]),
        ("round(f(1)) == 1", [1.2], [1.6]),
        ("round(f(1), ndigits=1) == 1.2", [1.21], [1.3]),
        ("math.isclose(f(1), 1.5, rel_tol=0.1)", [1.5, 1.6], [2, "1.5", NAN]),
        ("math.isclose(f(1), 0, abs_tol=1e-3)", [1e-4], [0.1]),
        ("math.sqrt(f(1)) == 2.0", [4], [5, -1]),
        ("math.floor(f(1)) == 1 and math.ceil(f(1)) == 2", [1.5], [2.5, math.inf]),
        ("math.fabs(f(1)) == 1", [-1], [2]),
        ("math.isnan(f(1))", [NAN], [1, "nan"]),
        ("f(1) == math.pi", [math.pi], [3]),
        ("f(1) < math.inf", [3], [math.inf]),
        ("sorted(f(1)) == [1, 2]", [[2, 1], (1, 2), {1, 2}], [[1, 3], 12, [1, "2"]]),
        ("sorted(f(1), reverse=True) == [2, 1]", [[1, 2]], [[1, 3]]),
        ("set(f(1)) == {1, 2}", [[1, 2, 1], (2, 1)], [[1], [[1]], 1]),
        ("set(f(1)) == set([1])", [[1]], [[2]]),
        ("set(f(1)) == {-1, -2}", [[-1, -2, -1]], [[-1]]),  # equal hashes
        ("frozenset(f(1)) == {1}", [[1]], [[2]]),
        ("tuple(f(1)) == (1, 2)", [[1, 2]], [[2, 1], 1]),
        ("list(f(1)) == [1, 2]", [(1, 2), [1, 2]], [(2, 1), None]),
        ("len(f(1)) == 2", ["ab", [1, 2], {1: 1, 2: 2}], ["a", 2, None]),
        ("sum(f(1)) == 3", [[1, 2], (3,), {1: 0, 2: 0}], [[1], ["a"], 3]),
        ("sum(f(1), start=1) == 3", [[2]], [[3]]),
        ("min(f(1)) == 1", [[1, 2]], [[2], [], 1]),
        ("min(f(1), default=1) == 1", [[]], [[2]]),
        ("max(f(1), 3) == 4", [4], [5, 3]),
        ("all(f(1))", [[1, True], []], [[0], 1]),
        ("any(f(1))", [[0, 1]], [[0], [], 1]),
        ("str(f(1)) == '12'", [12, "12"], [13, [12]]),
        ("int(f(1)) == 12", [12.5, "12", 12], ["a", None, NAN]),
        ("float(f(1)) == 1.5", ["1.5", 1.5], ["x", [1.5]]),
        ("bool(f(1))", [[0]], [[]]),
        ("complex(f(1)) == 1j", [1j], [1]),
        ("ord(f(1)) == 97 and chr(98) == 'b'", ["a"], ["b", "ab"]),
        ("isinstance(f(1), int)", [1, True], [1.0, "1"]),
        ("isinstance(f(1), (int, float))", [1, 1.0], ["1"]),
        ("type(f(1)) == list", [[1]], [(1,)]),
        ("type(f(1)) is bool", [True], [1]),
        ("f(1)[0] == 3", [[3, 4], {0: 3}, (3,)], [[4], [], 3, {}]),
        ("f(1)[-1] == 3", [[1, 3]], [[3, 1]]),
        ("f(1)['a'][0] == 3", [{"a": [3]}], [{"a": 3}, {}]),
        ("f(1)[1:] == [2]", [[1, 2]], [[2], (1, 2), None]),
        ("f(1)[:2] == [1, 2] and f(1)[::-1] == [2, 1]", [[1, 2]], [[1, 2, 3]]),
        ("f(1) + 1 == 4 and f(1) - 1 == 2 and f(1) * 2 == 6", [3], [4, "3"]),
        ("f(1) / 2 == 1.5 and f(1) // 2 == 1 and f(1) % 2 == 1", [3], [4, "3"]),
        ("f(1) ** 2 == 9", [3, -3], [4, "3"]),
        ("-f(1) == 3 and +f(1) == -3", [-3], [3, "a"]),
        ("f(1) & 1 == 1 and f(1) | 1 == 3 and f(1) ^ 1 == 2", [3], [2, 3.0]),
        ("f(1) & {1} == {1}", [{1, 2}], [{2}, [1]]),
        ("f(1) == [1, 'a', (2.5, None), {'k': {3}}]", [[1, "a", (2.5, None), {"k": {3}}]], [[1, "a", [2.5, None], {}]]),
        ("f(1) == ()", [()], [[], None]),
        ("f(1) == (3,)", [(3,)], [[3], 3]),
        ("f(1) == {'a': 1, 2: 'b'}", [{2: "b", "a": 1}], [{"a": 1}]),
        ("f(1) == {1, 2}", [{2, 1}, frozenset({1, 2})], [[1, 2]]),
        ("f(1) == -3", [-3], [3]),
        ("f(1) == 0.5", [Fraction(1, 2), Decimal("0.50")], [Fraction(1, 3), Decimal("0.51"), "0.5"]),
        ("f(1) == [1, 2.5]", [[Decimal(1), Fraction(5, 2)]], [[Fraction(1, 2), 2.5]]),
        ("f(1) ** 2 == 0.25", [Fraction(1, 2), Decimal("0.5")], [Fraction(1, 3)]),
        ("0 < f(1) < 1 and round(f(1), 1) < 1", [Fraction(1, 2), Decimal("0.5")], [Fraction(3, 2), Decimal(2)]),
        ("f(1) == 1 + 2j", [1 + 2j], [1 - 2j]),
        ("f(1) == b'ab'", [b"ab"], ["ab"]),
        ("f(1) == float('inf')", [math.inf], [-math.inf]),
        ("f(1) == 2 ** 31 - 1", [2147483647], [2147483648]),
        ("f(1) == [0] * 5 + ['a' * 3]", [[0, 0, 0, 0, 0, "aaa"]], [[0]]),
        ("f(1) == list(range(10))", [list(range(10))], [list(range(9))]),
        ("f(1) == 'ab' 'cd'", ["abcd"], ["ab"]),
        ("[f(1), 2] == [1, 2] and (f(1), 2) == (1, 2)", [1], [2]),
        ("{f(1): f(1)} == {1: 1} and {f(1), 2} == {1, 2}", [1], [2, [1]]),
    ],
)
def test_an_expression_holds_for_good_results_and_not_for_bad_ones(assertion, good, bad):
    parsed = one("import math\nassert " + assertion)
    assert set(map(repr, parsed.calls)) == {repr(Call("f", (1,)))}
    for value in good:
        assert parsed.holds([value] * len(parsed.calls)) is True, value
    for value in bad:
        assert parsed.holds([value] * len(parsed.calls)) is False, value


@pytest.mark.parametrize(
    ("call", "args", "kwargs"),
    [
        ("f()", (), {}),
        ("f(1, -2, +3, 4.5, 1e400)", (1, -2, 3, 4.5, math.inf), {}),
        ("f('a', \"it's\", b'b', None, True)", ("a", "it's", b"b", None, True), {}),
        ("f([1, [2]], (3,), {'a': {4}}, {5}, frozenset({6}))", ([1, [2]], (3,), {"a": {4}}, {5}, frozenset({6})), {}),
        ("f([], (), {}, set(), 1 + 2j)", ([], (), {}, set(), 1 + 2j), {}),
        ("f(a=1, b=[2])", (), {"a": 1, "b": [2]}),
        ("f([0] * 5, 'a' * 3, 2 ** 31 - 1, 7 // 2)", ([0] * 5, "aaa", 2147483647, 3), {}),
        ("f(list(range(3)), tuple(range(2)))", ([0, 1, 2], (0, 1)), {}),
        ("f(float('inf'), [float('-inf')])", (math.inf, [-math.inf]), {}),
        ("f(sorted([2, 1]), [1, 2][::-1], 'abc'[1], not 1, 1 and 2, 1 < 2)", ([1, 2], [2, 1], "b", False, 2, True), {}),
        ("f(math.pi, math.sqrt(4))", (math.pi, 2.0), {}),
    ],
)
def test_arguments_are_computed_outside_the_sandbox(call, args, kwargs):
    assert one(f"assert {call} == 1").calls == (Call("f", args, kwargs),)


def test_several_calls_are_in_pythons_order():
    parsed = one("assert f(1) < g(2) <= f(3, k=4) and [h()] or f(5)")
    assert parsed.calls == (Call("f", (1,)), Call("g", (2,)), Call("f", (3,), {"k": 4}), Call("h"), Call("f", (5,)))
    assert parsed.holds([1, 2, 3, 0, 0])
    assert not parsed.holds([1, 1, 3, 0, 0])
    assert parsed.holds([1, 1, 3, 0, 7])


def test_equal_calls_are_made_twice():
    parsed = one("assert f(1) == f(1)")
    assert len(parsed.calls) == 2
    assert parsed.holds([1, 1]) and not parsed.holds([1, 2])


@pytest.mark.parametrize("values", [[], [3, 3], [3, None]])
def test_a_wrong_number_of_results_does_not_hold(values):
    assert not one("assert f(1) == 3").holds(values)
    assert not one("assert f(1) or True").holds(values)


def test_operands_that_python_skips_are_not_evaluated():
    assert one("assert f(1) == 0 or 6 / f(1) > 1").holds([0, 0])
    assert not one("assert f(1) == 1 or 6 / f(1) > 1").holds([0, 0])
    assert one("assert not (f(1) and 6 / f(1) < 1)").holds([0, 0])
    assert not one("assert 1 < f(1) < f(2)").holds([0, "a"])
    assert one("assert not 1 < f(1) < f(2)").holds([0, "a"])


def test_variables_have_constant_values():
    suite = "x = [3, 1]\ny = x[0] + 1\nassert f(x, y, k=x) == 2\ny = 'b'\nassert f(y) == 1\nassert f(1) == y"
    first, second, third = parse_assertions(suite)
    assert first.calls == (Call("f", ([3, 1], 4), {"k": [3, 1]}),)
    assert second.calls == (Call("f", ("b",)),)
    assert third.holds(["b"]) and not third.holds([4])


def test_every_call_has_its_own_copy_of_its_arguments():
    first, second = parse_assertions("x = [[1]]\nassert f(x) == 1\nassert f(x) == 1")
    first.calls[0].args[0][0].append(2)
    assert second.calls == (Call("f", ([[1]],)),)


def test_functions_can_be_imported_under_any_name():
    for suite in (
        "import math\nassert math.isclose(f(1), 1.5)",
        "import os, math as m\nassert m.isclose(f(1), 1.5)",
        "from math import isclose\nassert isclose(f(1), 1.5)",
        "from math import pi, isclose as close\nassert close(f(1), pi - pi + 1.5)",
        "assert math.isclose(f(1), 1.5)",  # some data sets have the imports in another column
    ):
        parsed = one(suite)
        assert parsed.calls == (Call("f", (1,)),)
        assert parsed.holds([1.5]) and not parsed.holds([1.6])


def test_a_star_import_of_types_or_of_the_solution_changes_nothing():
    for module in ("typing", "solution"):
        assert one(f"from {module} import *\nassert f(1) == 3").calls == (Call("f", (1,)),)


def test_the_entry_point_may_have_the_name_of_a_builtin():
    parsed = one("assert sum(10, 15) == 6", "sum")
    assert parsed.calls == (Call("sum", (10, 15)),)
    assert parsed.holds([6]) and not parsed.holds([25])
    assert one("def check(candidate):\n    assert candidate(1) == 6\ncheck(max)").calls == (Call("max", (1,)),)
    assert one("assert check(70) == False").calls == (Call("check", (70,)),)


def test_an_assertion_pickles_and_compares():
    suite = "assert sorted(f([1], k={2: 3})[1:], reverse=True) == [3] and isinstance(g(), int) and g() in range(3)"
    parsed = one(suite)
    again = pickle.loads(pickle.dumps(parsed))
    assert again == parsed == one(suite) != one(suite.replace("[3]", "[4]"))
    assert isinstance(again, Assertion) and again.holds([[0, 3], 1, 2]) and not again.holds([[0, 4], 1, 2])


# Results that can be iterated over, as they leave the sandbox.


def received(value, items=None):
    """A result as this process receives it from the sandbox."""
    value = value if items is None or not hasattr(value, "__next__") else itertools.islice(value, items)
    return wire.decode(wire.encode(value, iterables=True))


ITERABLES = {
    "map": lambda: map(int, "312"),
    "filter": lambda: filter(None, [3, 0, 1, 2]),
    "zip": lambda: zip([3, 1], [1, 2], strict=True),
    "generator": lambda: (n for n in (3, 1, 2)),
    "reversed": lambda: reversed([2, 1, 3]),
    "enumerate": lambda: enumerate("ab"),
    "chain": lambda: itertools.chain([3], (1, 2)),
    "range": lambda: range(1, 9, 3),
    "deque": lambda: collections.deque([3, 1, 2]),
    "keys": lambda: {3: "a", 1: "b"}.keys(),
    "values": lambda: {"a": 3, "b": 1}.values(),
    "items": lambda: {3: "a", 1: "b"}.items(),
    "array": lambda: array.array("i", [3, 1]),
    "text": lambda: "ba",
    "list": lambda: [3, 1, 2],
    "set": lambda: {3, 1, 2},
    "empty": lambda: iter(()),
}
USES = [
    *("list(f())", "tuple(f())", "set(f())", "sorted(f())", "sorted(f(), reverse=True)", "len(list(f()))", "len(f())"),
    *(
        "sum(f())",
        "min(f())",
        "max(f())",
        "next(f())",
        "next(iter(f()))",
        "next(f(), 7)",
        "list(iter(f()))",
        "dict(f())",
    ),
    *("3 in f()", "all(f())", "any(f())", "f()[0]", "f()[1:]", "list(enumerate(f()))", "list(zip(f(), [1, 2]))"),
    *("list(itertools.islice(f(), 2))", "list(itertools.islice(f(), 1, 2))", "list(reversed(f()))", "bool(f())"),
    *("f()", "[f()]", "str(len(list(f())))", "list(f()) + [1]", "collections.deque(f())", "frozenset(f())"),
]
EXPECTED = [
    "[3, 1, 2]",
    "[1, 2, 3]",
    "(3, 1, 2)",
    "{3, 1, 2}",
    "{3, 1}",
    "3",
    "6",
    "[(3, 1), (1, 2)]",
    "range(1, 9, 3)",
]
EXPECTED += [
    "collections.deque([3, 1, 2])",
    "[]",
    "True",
    "{3: 'a', 1: 'b'}",
    "[3, 1]",
    "['b', 'a']",
    "{(3, 'a'), (1, 'b')}",
]


@pytest.mark.parametrize("name", ITERABLES)
def test_results_that_can_be_iterated_over_are_judged_as_python_judges(name):
    held = 0
    for use in USES:
        for expected in EXPECTED:
            suite = f"import itertools, collections\nassert {use} == {expected}"
            try:
                (assertion,) = parse_assertions(suite)
            except ValueError as refused:
                assert "raises" in str(refused)
                continue
            values = [received(ITERABLES[name](), call.items) for call in assertion.calls]
            verdict = assertion.holds(values)
            assert verdict is truth(suite, {"f": ITERABLES[name]}), suite
            held += verdict
    assert held


@pytest.mark.parametrize(
    ("expression", "items"),
    [
        ("next(f(1)) == 3", 1),
        ("next(iter(f(1))) == 3", 1),
        ("next(f(1), None) == 3", 1),
        ("list(itertools.islice(f(1), 3)) == [3, 4, 5]", 3),
        ("sorted(itertools.islice(f(1), 2, 4)) == [5, 6]", 4),
        ("list(itertools.islice(f(1), 0, 5, 2)) == [3, 5, 7]", 5),
        ("list(f(1)) == [3]", None),
        ("list(itertools.islice(f(1), None)) == [3]", None),
    ],
)
def test_only_the_needed_items_of_an_iterator_are_read(expression, items):
    assertion = one("import itertools\nassert " + expression)
    assert [call.items for call in assertion.calls] == [items]
    if items is not None:
        assert assertion.holds([received(itertools.count(3), items)])
        assert not assertion.holds([received(itertools.count(4), items)])


def test_an_iterator_in_a_suite_is_new_for_every_program():
    assertion = one("assert f(1) in zip([1, 2], [3, 4]) and list(enumerate('a')) == [(0, 'a')]")
    assert [assertion.holds([value]) for value in ((2, 4), (2, 4), (1, 3), (1, 4))] == [True, True, True, False]


def test_long_integers_in_a_suite():
    number = 10**9000 + 7
    for expression in ("f(1) == 10 ** 9000 + 7", "f(1) % 10 == 7", "len(str(f(1))) == 9001", "str(f(1))[-2:] == '07'"):
        assert one(f"assert {expression}").holds([number])
        assert not one(f"assert {expression}").holds([number * 10])
    assert one("assert str(f(1)) == '-12' and str() == ''").holds([-12])


# Suites in the style of data sets.

MBPP = """import math
assert surface_cone(5, 12) == 282.7433388230814
assert math.isclose(surface_cone(10, 15), 880.5179353159282, rel_tol=0.001)
assert set(shared((3, 4, 5, 6), (5, 7, 4, 10))) == set((4, 5)), "order does not matter"
assert (spell("python program")==('PYTHON PROGRAM'))
assert not odd(10)
assert odd(11) == True"""

MBPP_SOLUTION = {
    "surface_cone": lambda r, h: math.pi * r * (r + math.sqrt(h * h + r * r)),
    "shared": lambda a, b: tuple(set(a) & set(b)),
    "spell": str.upper,
    "odd": lambda n: n % 2 == 1,
}

HUMANEVAL = '''

METADATA = {
    'author': 'nobody',
    'dataset': 'test'
}


def check(candidate):
    """Checks it."""
    import math
    numbers = [4, -2, 9]

    # Check some simple cases
    assert candidate([1, 2, 3]) == [1, 3, 6], "This prints if this assert fails 1 (good for debugging!)"
    assert candidate([]) == []
    assert True, "This prints if this assert fails 2 (good for debugging!)"

    # Check some edge cases that are easy to work out by hand.
    assert candidate(numbers) == [4, 2, 11]
    assert abs(candidate([0.1, 0.2])[-1] - 0.3) < 1e-6
    assert tuple(candidate([7])) == tuple(running_sum([7]))

'''


def running_sum(numbers):
    total, sums = 0, []
    for number in numbers:
        total += number
        sums.append(total)
    return sums


def test_a_suite_in_the_style_of_mbpp():
    parsed = parse_assertions(MBPP)
    assert [call.function for assertion in parsed for call in assertion.calls] == [
        *("surface_cone", "surface_cone", "shared", "spell", "odd", "odd"),
    ]
    assert truth(MBPP, MBPP_SOLUTION) and run(MBPP, MBPP_SOLUTION)
    for name in MBPP_SOLUTION:
        broken = MBPP_SOLUTION | {name: lambda *args: (1,)}
        assert not truth(MBPP, broken) and not run(MBPP, broken), name


@pytest.mark.parametrize(
    ("end", "entry_point"), [("", "running_sum"), ("check(running_sum)", None), ("check(running_sum)", "running_sum")]
)
def test_a_suite_in_the_style_of_humaneval(end, entry_point):
    suite = HUMANEVAL + end
    parsed = parse_assertions(suite, entry_point)
    assert [[call.args for call in assertion.calls] for assertion in parsed] == [
        *([([1, 2, 3],)], [([],)], [([4, -2, 9],)], [([0.1, 0.2],)], [([7],), ([7],)]),
    ]
    assert {call.function for assertion in parsed for call in assertion.calls} == {"running_sum"}
    assert run(suite, {"running_sum": running_sum}, entry_point)
    assert not run(suite, {"running_sum": lambda numbers: sorted(running_sum(numbers))}, entry_point)


def test_check_has_its_own_scope():
    suite = (
        "x = 1\ndef check(candidate):\n    x = 2\n    assert candidate(x)\ncheck(f)\nassert f(x)\nassert candidate(3)"
    )
    assert [assertion.calls[0] for assertion in parse_assertions(suite)] == [
        Call("f", (2,)),
        Call("f", (1,)),
        Call("candidate", (3,)),
    ]


# Unsupported suites.


@pytest.mark.parametrize(
    ("suite", "parts"),
    [
        ("", ["The suite", "no assertion", "write at least one `assert`"]),
        ("x = 1", ["The suite", "no assertion"]),
        ("assert True", ["The suite", "no assertion"]),
        ("f(1) = 2", ["The suite", "not Python", "line 1", "give `assert` statements"]),
        ("assert f(1) == 1\nassert f('\x00')", ["The suite", "not Python"]),
        ("assert '\ud800'", ["The suite", "not Python"]),
        ("assert 1 == 1", ["Line 1, `assert 1 == 1`", "calls no function of the solution", "entry_point"]),
        ("assert False", ["Line 1", "calls no function of the solution"]),
        ("x = [1]\nassert x == [1]", ["Line 2, `assert x == [1]`", "calls no function of the solution"]),
        ("assert (f(1) == 2, 'message')", ["Line 1", "a tuple is always true", "without parentheses"]),
        ("assert f(g(1)) == 2", ["Line 1", "`g(1)` uses the result of a call", "write its value instead"]),
        ("assert f([1, g(1) + 1]) == 2", ["`[1, g(1) + 1]` uses the result of a call"]),
        ("assert f(k=g(1)) == 2", ["`g(1)` uses the result of a call"]),
        ("x = f(1)\nassert x == 2", ["Line 1, `x = f(1)`", "`f(1)` uses the result of a call"]),
        ("f(1)", ["Line 1, `f(1)`", "bare expression", "assert the function's result"]),
        ("x = [3, 1]\nf(x)\nassert x == [1, 3]", ["Line 2, `f(x)`", "bare expression"]),
        ("x = [3, 1]\nassert f(x) is None\nassert x == [1, 3]", ["Line 3", "calls no function"]),
        ("x = [3, 1]\nassert f(x) == x", ["Line 2", "reads a variable", "write its value instead"]),
        ("x = {3, 1}\nassert f(x) == x", ["Line 2", "reads a variable"]),
        ("x = {3: 1}\nassert f(x) == x", ["Line 2", "reads a variable"]),
        ("x = [3, 1]\nassert x == f(x)", ["Line 2", "reads a variable"]),
        ("x = [3, 1]\nassert f(k=x) == x[0]", ["Line 2", "reads a variable"]),
        ("x = [3, 1]\nassert f(x)\nassert f(1) == x", ["Line 3", "reads a variable"]),
        ("x = [3, 1]\nassert f(x)\ny = x[0]\nassert f(1) == y", ["Line 3", "reads a variable"]),
        ("x = [3, 1]\ny = x\nassert f(x) == y", ["Line 3", "reads a variable"]),
        ("x = [3, 1]\ny = (1, {2: x})\nassert f(y) == x", ["Line 3", "reads a variable"]),
        ("x = [3, 1]\ny = (1, [x])\nassert f(x) == y", ["Line 3", "reads a variable"]),
        ("for i in range(3):\n    assert f(i) == i", ["Line 1", "a loop", "one assertion per iteration"]),
        ("while True:\n    assert f(1)", ["Line 1", "this statement"]),
        ("if True:\n    assert f(1)", ["Line 1", "this statement"]),
        ("with raises(ValueError):\n    f(1)", ["Line 1", "this statement"]),
        ("x = 1\nx += 1", ["Line 2, `x += 1`", "this statement"]),
        ("a, b = 1, 2", ["Line 1, `a, b = 1, 2`", "this statement", "constants assigned to names"]),
        ("x = [1]\nx[0] = 2", ["Line 2", "this statement"]),
        ("try:\n    f(1)\nexcept ValueError:\n    pass", ["Line 1, `try: f(1) except", "expected exception", "leave"]),
        ("class T(unittest.TestCase):\n    def test(self): pass", ["Line 1", "a class", "as `assert` statements"]),
        ("def helper(x): return x", ["Line 1", "a function is not supported", "`def check(candidate):`"]),
        ("def check(a, b): assert a(1)", ["Line 1", "a function is not supported"]),
        ("def check(a): pass\ndef check(a): pass", ["Line 2", "a function is not supported"]),
        ("def check(a): assert a(1)", ["The suite", "nothing calls its `check`", "give entry_point"]),
        ("def check(a): assert check(a)\ncheck(f)", ["Line 1", "`check` is not supported"]),
        ("def check(a): check(a)\ncheck(f)", ["Line 1, `check(a)`", "bare expression"]),
        ("check(f)", ["Line 1, `check(f)`", "bare expression"]),
        ("def check(a):\n    assert 1 == 1\ncheck(f)", ["Line 2, `assert 1 == 1`", "calls no function"]),
        ("def check(a):\n    return a(1)\ncheck(f)", ["Line 2, `return a(1)`", "this statement"]),
        ("assert all(f(i) for i in range(3))", ["`(f(i) for i in range(3))` is not supported"]),
        ("assert [f(i) for i in [1]] == [1]", ["`[f(i) for i in [1]]` is not supported"]),
        ("assert f(lambda x: x) == 1", ["`lambda x: x` is not supported"]),
        ("assert (lambda: f(1))() == 1", ["function `lambda: f(1)` is not supported"]),
        ("assert f(1)(2) == 3", ["function `f(1)` is not supported"]),
        ("assert f(1).x == 3", ["`f(1).x` is not supported"]),
        ("assert f(1).lower() == 'a'", ["function `f(1).lower` is not supported"]),
        ("assert Solution().f(1) == 3", ["function `Solution().f` is not supported"]),
        ("assert ' '.join(f(1)) == 'a'", ["function `' '.join` is not supported"]),
        ("assert solution.f(1) == 3", ["function `solution.f` is not supported", "give entry_point"]),
        ("assert f(1) == f'{3}'", ["`f'{3}'` is not supported"]),
        ("assert f(1) == (3 if 1 else 4)", ["`3 if 1 else 4` is not supported"]),
        ("assert (x := f(1)) == 3", ["`x := f(1)` is not supported"]),
        ("assert f(*[1, 2]) == 3", ["`*[1, 2]` is not supported"]),
        ("assert f(**{'a': 1}) == 3", ["`**` in a call", "write the keywords one by one"]),
        ("assert f(1) == [*[1]]", ["`*[1]` is not supported"]),
        ("assert f(1) == {**{}, **{}}", ["`{**{}, **{}}` is not supported"]),
        ("assert f(1) == x", ["`x` is not supported"]),
        ("assert f(g) == 1", ["`g` is not supported"]),
        ("assert f(len) == 1", ["`len` is not supported"]),
        ("from math import *\nassert f(1) == gcd(4, 6)", ["Line 1", "functions that are then called", "name what is"]),
        ("import string\nassert f(string.digits)", ["`string.digits` is not supported"]),
        ("assert f(1) == math.factorial(3)", ["function `math.factorial` is not supported"]),
        ("import numpy as np\nassert np.isclose(f(1), 2)", ["Line 2", "function `np.isclose` is not supported"]),
        ("from collections import Counter\nassert Counter(f(1)) == {}", ["function `Counter` is not supported"]),
        ("import cmath as math\nassert math.isclose(f(1), 2)", ["function `math.isclose` is not supported"]),
        ("len = 3\nassert len(f(1)) == 3", ["function `len` is not supported"]),
        ("assert list(filter(f(1))) == []", ["function `filter` is not supported", "entry_point"]),
        ("x = iter([1])\nassert f(1) == next(x)", ["Line 1", "`iter([1])` is an iterator", "write its value instead"]),
        ("x = [zip([1], [2])]\nassert f(1) == x", ["Line 1", "`[zip([1], [2])]` is an iterator"]),
        ("assert f(zip([1], [2])) == 1", ["`zip([1], [2])` is an iterator"]),
        ("assert eval('1') == f(1)", ["function `eval` is not supported"]),
        ("assert open('x') == f(1)", ["function `open` is not supported"]),
        ("assert sorted(f(1), key=len) == []", ["`key=len` is not supported"]),
        ("assert sorted(f(1), **{}) == []", ["`**{}` is not supported"]),
        ("assert f(1) is f(2)", ["`is`", "write `==`"]),
        ("assert f(1) is not 3", ["`is`", "write `==`"]),
        ("assert f(1) @ 2", ["operator MatMult is not supported"]),
        ("assert f(1) << 2", ["operator LShift is not supported"]),
        ("assert ~f(1)", ["operator Invert is not supported"]),
        ("assert f(1 / 0) == 1", ["computing a constant raises ZeroDivisionError: division by zero", "correct it"]),
        ("assert f([1][2]) == 1", ["computing a constant raises IndexError"]),
        ("assert f({}['a' * 9999]) == 1", ["computing a constant raises KeyError: 'aaaa"]),
        ("assert sum(10, 15) == 6", ["computing a constant raises TypeError"]),
        ("assert f(...) == 1", ["ellipsis is not plain data", "builtin types"]),
        ("assert f(range(3)) == 1", ["range is not plain data"]),
        ("assert f([int]) == 1", ["type is not plain data"]),
    ],
)  # fmt: skip
def test_the_error_for_an_unsupported_suite_has_the_line_the_reason_and_the_fix(suite, parts):
    message = refusal(suite)
    assert message.endswith(".") and "; " in message
    for part in parts:
        assert part in message, message


def test_a_check_of_another_function_than_the_entry_point_is_refused():
    assert "g is not the entry point f" in refusal("def check(a): assert a(1)\ncheck(g)", "f")


def test_the_error_shows_the_beginning_of_a_long_assertion():
    message = refusal("assert f(1) == 1\n\nassert g(h(1),\n    " + "'a', " * 99 + ")")
    excerpt = message.split("`")[1]
    assert message.startswith("Line 3, `assert g(h(1), 'a', 'a', ") and excerpt.endswith("…")
    assert len(excerpt) == MAX_EXCERPT


def test_one_unsupported_assertion_refuses_the_suite():
    assert refusal("assert f(1) == 1\nassert f(g(1)) == 1\nassert f(1) == 1").startswith("Line 2, ")


def test_variables_that_no_call_could_have_changed_may_be_read():
    for suite in (
        "x = [3, 1]\ny = sorted(x)\nassert f(x) == y",
        "x = [3, 1]\ny = [3, 1]\nassert f(x) == y",
        "x = [3, 1]\nassert f(x)\nx = [3, 1]\nassert f(1) == x",
        "x = (3, 'a')\nassert f(x) == x",
        "x = [3, 1]\nassert f(x) and g(x)",
        "x = [3, 1]\nassert f(x)\nassert f(x + [1])",
        "x = [3, 1]\nassert f(1) == x",
    ):
        assert parse_assertions(suite), suite


# Limits on suites and on results.


SIZE = f"a value has more than {MAX_SIZE} items and characters"
BITS = f"an integer has more than {MAX_BITS} bits"


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        ("'a' * 10 ** 12", SIZE),
        ("10 ** 12 * b'a'", SIZE),
        ("10 ** 12 * [0]", SIZE),
        ("(0,) * 10 ** 12", SIZE),
        ("[[0] * 1000] * 100000", SIZE),
        ("[[[[[0] * 99] * 99] * 99] * 99] * 99", SIZE),
        ("'a' * 2 ** 19 + 'b' * 2 ** 19 + 'c'", SIZE),
        ("9 ** 9 ** 9", "a power is too large"),
        ("2 ** 10 ** 9", "a power is too large"),
        ("2 ** 2 ** 16 * 2 ** 2 ** 16", BITS),
        ("0x" + "f" * 33000, BITS),
        ("list(range(10 ** 12))", SIZE),
        ("len(range(10 ** 30))", "OverflowError"),
        ("set(range(10 ** 12))", SIZE),
        ("sum([[0] * 999] * 999, [])", "sum takes only numbers"),
        ("round(5, -10 ** 9)", "round has too many digits"),
        ("'%1000000000d' % 3", "does not format text"),
        ("b'%1000000000d' % 3", "does not format text"),
        ("str([2 ** 16000] * 10 ** 6)", SIZE),
        ("[2 ** 16000] * 10000", SIZE),
        ("bytes(10 ** 12)", "`bytes` is not supported"),
        ("int('9' * 10 ** 6)", "Exceeds the limit"),
    ],
)  # fmt: skip
def test_a_constant_that_would_be_too_large_is_refused_fast(constant, reason):
    with cpu_limit(20):
        assert reason in refusal(f"assert f({constant}) == 1")
        assert reason in refusal(f"assert f(1) == ({constant})")


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("suite", "part"),
    [
        (
            "\n".join(f"x{i} = [0] * 10 ** 6" for i in range(1000)) + "\nassert f(1)",
            "the total size of the constants is more than",
        ),
        ("x = [0] * 10 ** 6\n" + "assert f(x) == 1\n" * 1000, "the total size of the constants is more than"),
        (
            "x = [0] * 10 ** 6\n" + "y = len(x)\n" * 1000 + "assert f(1) == 1",
            "the total size of the constants is more than",
        ),
        ("assert f(1) == 1\n" * 100000, "more than 1048576 characters"),
        ("assert f(" + "[" * 150 + "]" * 150 + ") == 1", f"nested more than {MAX_DEPTH} deep"),
        ("assert f(1) == " + "-" * 150 + "1", f"nested more than {MAX_DEPTH} deep; split its expressions"),
        ("assert f(1) == " + "-" * 5000 + "1", "The suite"),
        ("assert f(1) == " + "1+" * 50000 + "1", "The suite"),
        ("x = []\n" + "x = [x]\n" * 200 + "assert f(x) == 1", f"nested more than {MAX_DEPTH} deep"),
        ("x = [1]\n" + "x = [x, x]\n" * 80 + "assert f(x) == 1", "more than"),
        ("x = 2\n" + "x = x * x\n" * 80 + "assert f(x) == 1", f"more than {MAX_BITS} bits"),
    ],
)
def test_a_suite_that_would_be_too_large_is_refused_fast(suite, part):
    with cpu_limit(40):
        assert part in refusal(suite)


def deep(kind, depth):
    value = kind([1])
    for _ in range(depth):
        value = kind([value])
    return value


class Equal(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


HOSTILE = {
    "huge integer": 10**1_000_000,
    "long integers": [2**16000] * 1000,
    "long fraction": Fraction(7, 2**200_000),
    "long decimal": Decimal("1e-9999"),
    "deep list": deep(list, 100_000),
    "deep tuple": deep(tuple, 100_000),
    "deep dict": deep(lambda items: {1: items[0]}, 100_000),
    "shared list": deep(lambda items: items * 2, 60),
    "long text": "a" * 2_000_000,
    "long list": [0] * 2_000_000,
    "items of one hash": [i * (2**61 - 1) for i in range(100_000)],
    "pairs of one hash": [(0, i * (2**61 - 1)) for i in range(30_000)],
    "nan": NAN,
    "equal to all": Equal(3),
    "nested equal to all": [Equal(3)],
    "object": object(),
    "function": len,
    "type": int,
    "class": Equal,
    "generator": (i for i in range(3)),
    "bytearray": bytearray(3),
    "huge range": range(10**12),
    "surrogate": "\ud800",
    "empty": "",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "expression",
    [
        "f(1) == [3]",
        "f(1) == 3",
        "set(f(1)) == {3}",
        "frozenset(f(1)) == {3}",
        "{f(1)} == {3}",
        "{f(1): 1} == {3: 1}",
        "f(1) in {3, 4}",
        "sorted(f(1)) == [3]",
        "sum(f(1)) == 3",
        "str(f(1)) == '3'",
        "[f(1)] == [[3]]",
        "abs(f(1) - 3) < 1",
        "f(1) * f(1) == 9",
        "f(1) * 1000000 == 3000000",
        "'a' * f(1) == 'aaa'",
        "f(1) ** f(1) == 27",
        "9 ** f(1) == 729",
        "f(1) % 2 == 1",
        "round(3, f(1)) == 5",
        "list(range(f(1))) == [0, 1, 2]",
        "max(f(1)) == 3",
        "f(1)[f(1):] == [3]",
        "isinstance(f(1), int) and f(1) == 3",
        "not f(1) is True and f(1) == 3",
    ],
)
def test_a_hostile_result_neither_holds_nor_raises_nor_hangs(name, expression):
    parsed = one(f"assert {expression}")
    values = [HOSTILE[name]] * len(parsed.calls)
    with cpu_limit(20):
        assert parsed.holds(values) is False


@pytest.mark.parametrize(
    "number",
    [10**9, -(10**9), 2**16000, 10**5, Fraction(1, 2**16000), Decimal("9e9999")],
    ids=["large", "small", "huge", "some", "fraction", "decimal"],
)
@pytest.mark.parametrize(
    "expression", ["9 ** f(1)", "'a' * f(1) == 1", "[0] * f(1) * 9 == 1", "round(5, f(1)) == 1", "f(1) ** f(2) == 1"]
)
def test_a_result_that_would_make_an_operation_too_large_does_not_hold(expression, number):
    with cpu_limit(20):
        parsed = one(f"assert {expression} == 7")
        assert parsed.holds([number] * len(parsed.calls)) is False


def test_type_cannot_create_a_class():
    assert not one("assert type(f(1), (), {})").holds(["a"])


def test_large_results_within_the_limits_hold():
    assert one("assert f(1) == list(range(10 ** 5))").holds([list(range(10**5))])
    assert one("assert len(f(1)) == 10 ** 6").holds(["a" * 10**6])
    assert one("assert sum(f(1)) == 2 * 10 ** 5").holds([[2] * 10**5])
    assert one("assert len(set(f(1))) == 2").holds([[1, 2] * 10**5])
    assert one("assert f(1) % 10 == 7").holds([10**4000 + 7])
    assert one("assert f(1)" + "[0]" * (MAX_DEPTH - 10) + " == [1]").holds([deep(list, MAX_DEPTH - 10)])


def test_the_exact_limits_of_a_value():
    parsed = one("assert f(1)")
    assert parsed.holds(["a" * (MAX_SIZE - 1)]) and not parsed.holds(["a" * MAX_SIZE])
    assert parsed.holds([[0] * (MAX_SIZE - 1)]) and not parsed.holds([[0] * MAX_SIZE])
    assert parsed.holds([dict.fromkeys(range(MAX_SIZE // 2 - 1))]) and not parsed.holds(
        [dict.fromkeys(range(MAX_SIZE // 2))]
    )
    assert parsed.holds([2 ** (MAX_BITS - 1)]) and not parsed.holds([2**MAX_BITS])
    assert parsed.holds([deep(list, MAX_DEPTH - 2)]) and not parsed.holds([deep(list, MAX_DEPTH - 1)])


# Comparison with Python's own `assert`.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.sampled_from([math.inf, "", "a", "b'\"", b"c", 2**70])
)
plain = st.recursive(
    scalars,
    lambda items: (
        st.lists(items, max_size=3)
        | st.lists(items, max_size=2).map(tuple)
        | st.dictionaries(st.integers(0, 3) | st.text("ab", max_size=1), items, max_size=2)
        | st.sets(st.integers(0, 3), min_size=1, max_size=3)
    ),
    max_leaves=6,
)
TEMPLATES = """
{0} == {1}; {0} != {1}; {1} == {0}; {0} < {1}; {0} <= {1} <= {0}; {0} > {1}; {0} >= {1}; {0} in {1}; {1} in {0}
{0}; not {0}; {0} and {1}; {0} or {1}; {0} == {1} or {0} < {1}; not ({0} == {1} and {0}); {0} not in {1}
[{0}] == [{1}]; ({0}, {1})[0] == {1}; {{1: {0}}} == {{1: {1}}}; {{{0}}} == {{{1}}}; {{{0}: 1}} == {{{1}: 1}}
sorted({0}) == {1}; sorted({0}, reverse=True) == {1}; set({0}) == set({1}); frozenset({0}) == {1}; len({0}) == len({1})
sum({0}) > 0; min({0}) == max({1}); max({0}, default=1) == {1}; all({0}); any({0}); tuple({0}) == {1}; list({0}) == {1}
str({0}) == str({1}); int({0}) == {1}; float({0}) < 3; bool({0}); isinstance({0}, (int, str)); type({0}) == type({1})
{0} is None; {0} is not True; {0}[0] == {1}; {0}[1:] == {1}[:-1]; abs({0} - {1}) < 1e-6; round({0}, 1) == {1}
{0} + {1} == {1} + {0}; {0} * 2 == {1}; {0} / {1} > 1; {0} // 2 == 1; {0} % 2 == 0; {0} ** 2 > 1; {0} - {1} == {1}
-{0} == {1}; {0} & {1} == {0}; {0} | {1} == {1}; {0} ^ {1} == {1}; math.isclose({0}, {1}, rel_tol=0.5)
"""
EXPRESSIONS = TEMPLATES.strip().replace("\n", "; ").split("; ")


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_the_verdict_is_the_same_as_pythons(data):
    """Random arguments, results and expected values in all forms. Each suite is also executed by Python."""
    source = lambda value: "float('inf')" if value == math.inf else repr(value).replace("inf", "float('inf')")  # noqa: E731
    argument, result, other = data.draw(plain), data.draw(plain), data.draw(plain)
    expected = data.draw(st.sampled_from([result, other, [result], 1]))
    calls = [f"f({source(argument)})", f"g(k={source(argument)})"]
    lines = ["import math"]
    for _ in range(data.draw(st.integers(1, 2))):
        call, right = data.draw(st.permutations([calls[0], data.draw(st.sampled_from([calls[1], source(expected)]))]))
        lines.append("assert " + data.draw(st.sampled_from(EXPRESSIONS)).format(call, right))
    suite = "\n".join(line for line in lines if line == "import math" or "f(" in line or "g(" in line)
    if suite == "import math":
        return
    solution = {
        "f": lambda value: copy.deepcopy(result) if repr(value) == repr(argument) else "another argument",
        "g": lambda *, k: copy.deepcopy(expected) if repr(k) == repr(argument) else "another argument",
    }
    try:
        verdict = run(suite, solution)
    except ValueError as refused:
        assert any(part in str(refused) for part in ("calls no function", "raises", "`is`")), refused
        return
    assert verdict is truth(suite, solution), suite


@given(st.lists(st.tuples(st.lists(st.integers(-5, 5), max_size=4), st.booleans()), min_size=1, max_size=4))
def test_a_suite_in_check_is_as_strict_as_python(cases):
    """Some of the expected sums are wrong by one. The suite holds exactly if Python raises no error."""
    body = "".join(f"    assert candidate({numbers}) == {sum(numbers) + off}\n" for numbers, off in cases)
    suite = "def check(candidate):\n" + body
    solution = {"total": sum}
    assert run(suite, solution, "total") is truth(suite, solution, "check(total)") is (not any(off for _, off in cases))
