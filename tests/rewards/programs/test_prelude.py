"""The names that a program may use without importing them."""

import pytest

from pace import cpu_limit
from rewards.programs.prelude import PRELUDE, prelude_names, uses_prelude
from rewards.programs.reward import Code
from rewards.programs.sandbox.box import Box
from tests.rewards.builders import block, call_tests, stdin_tests

SQUARE = call_tests(([3], 9), ([-4], 16))


def statuses(programs, tests=SQUARE, **options):
    reward = Code(workers=2, **options)
    return [status for status, _ in reward.grade(list(map(block, programs)), [tests] * len(programs))]


USUAL = [
    "class Solution:\n    def f(self, x: int) -> Optional[int]: return x * x",
    "class Solution:\n    def f(self, x: List[int]) -> Dict[str, Tuple[int, Any]]: return x * x",
    "def f(x): return sum(Counter({x: abs(x)}).elements()) if x > 0 else x * x",
    "def f(x): return int(math.sqrt(x ** 4))",
    "def f(x): return int(sqrt(x ** 4)) + inf * 0 if x == inf else x * x",
    "def f(x):\n    heap = []\n    heappush(heap, x * x)\n    return heapq.heappop(heap)",
    "def f(x): return defaultdict(lambda: x * x)[0]",
    "def f(x): return deque([x * x]).pop()",
    "def f(x): return x * x * (type(Counter('a')) is Counter)",
    "def f(x): return deepcopy([x * x])[0]",
    "@dataclass\nclass Square:\n    side: int\ndef f(x): return Square(x * x).side",
    "def f(x): return reduce(mul, [x, x])",
    "@lru_cache(None)\ndef f(x): return x * x",
    "@cache\ndef f(x): return list(accumulate([x, x], lambda a, b: a * b))[-1]",
    "def f(x): return [*itertools.islice(count(x * x), 1)][bisect_left([1], 0)]",
    "def f(x): return len(list(product(range(abs(x)), repeat=2)))",
    "def f(x): return int(Fraction(x) * Decimal(1) if False else Fraction(x) * x)",
    "def f(x): return int(re.sub('a', '', f'a{x * x}')) + len(ascii_lowercase) - 26",
    "def f(x): return copy.deepcopy([x * x])[0] if sys.maxsize else random.random()",
]


def test_programs_may_use_the_usual_names():
    assert statuses(USUAL) == ["ok"] * len(USUAL)
    assert statuses(USUAL, prelude="") == ["died"] * len(USUAL)


OWN = [
    "from __future__ import annotations\ndef f(x: List[int]) -> Unknown: return x * x",
    "from typing import *\nfrom math import *\ndef f(x): return int(pow(x, 2))",
    "def f(x): return pow(x, 2, 1000)",  # the builtin, not that of math
    "def f(x): return abs(x) * abs(x) if max([x]) == x else 0",
    "def gcd(a, b): return a * b\ndef f(x): return gcd(x, x)",
    "count = lambda x: x * x\ndef f(x): return count(x)",
    "class deque(list): pass\ndef f(x): return deque([x * x])[0]",
    "def f(x):\n    def product(a, b): return a * b\n    return product(x, x)",
    "def f(x):\n    for e in [x]: pi = e * e\n    return pi",
    "assert 'heappush' not in globals() and not hasattr(sys.modules[__name__], 'deque')\ndef f(x): return x * x",
    "import sys\n\ndef f(x):\n    return x * x * (sys._getframe().f_lineno == 4) * (Counter('a')['a'])",  # line numbers
]


def test_names_of_the_program_and_builtin_names_come_first():
    assert statuses(OWN) == ["ok"] * len(OWN)


def test_a_name_of_the_prelude_is_not_a_function_of_the_program():
    tests = {"type": "call", "fn_name": "gcd", "cases": [{"args": [4, 6], "expected": 2}]}
    solution = "class Solution:\n    def gcd(self, a, b): return a if not b else self.gcd(b, a % b)"
    wrong = "class Solution:\n    def gcd(self, a, b): return 1"
    assert statuses(["x = gcd(4, 6)", solution, wrong], tests) == ["died", "ok", "wrong"]


def test_the_prelude_is_for_tests_of_standard_output_too():
    program = "print(gcd(*map(int, sys.stdin.read().split())))"
    assert statuses([program], stdin_tests(("4 6", "2"))) == ["ok"]


def test_a_prelude_of_the_recipe():
    helper = "import math\ndef double(x):\n    return math.floor(scale * x)\nscale = 2\n"
    assert (
        statuses(["def f(x): return double(x) * x // 2", "def f(x): return math.prod([x, x])"], prelude=helper)
        == ["ok"] * 2
    )
    assert statuses(["def f(x): return prod([x, x])"], prelude=helper) == ["died"]


@pytest.mark.parametrize(
    ("prelude", "reason"),
    [
        ("import numpy_is_not_here", "ModuleNotFoundError: No module named 'numpy_is_not_here'"),
        ("from math import *\nx = unknown", "NameError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_prelude_that_fails_is_refused_in_one_line(prelude, reason):
    with pytest.raises(ValueError, match=f"prelude='.*fails, so no program could run: .*{reason}") as refused:
        Code(prelude=prelude)
    assert "\n" not in str(refused.value) and "Traceback" not in str(refused.value)


def test_the_names_of_a_prelude():
    names = prelude_names(PRELUDE, Box())
    assert {"deepcopy", "dataclass", "field", "randint"} <= names
    assert {"List", "Counter", "heappush", "math", "inf", "ascii_lowercase", "Fraction", "reduce", "sys"} <= names
    assert not {"pow", "abs", "print", "exit", "__name__"} & names
    assert prelude_names("", Box()) == frozenset()


@pytest.mark.parametrize(
    ("program", "uses"),
    [
        ("print(1)", False),
        ("print(gcd(4, 6))", True),
        ("from math import gcd\nprint(gcd(4, 6))", False),
        ("from math import (gcd)\nprint(gcd(4, 6))", True),
        ("from math import gcd, sqrt  # both\nprint(gcd(4, 6), sqrt(4))", False),
        ("from math import sqrt\nprint(math.gcd(4, 6), sqrt(4))", True),
        ("from math import gcd as g\nprint(gcd(4, 6))", True),
        ("import math, heapq\nprint(math.gcd(4, 6))", False),
        ("import heapq\nprint(math.gcd(4, 6))", True),
        ("import math; print(math.gcd(4, 6), sqrt(4))", True),
        ("def f():\n    import math\nprint(math.pi)", True),
        ("print(x.gcd(4, 6))", False),
        ("print(my_gcd, gcd2)", False),
    ],
)
def test_the_prelude_is_run_only_for_a_program_that_may_use_it(program, uses):
    assert uses_prelude(program, {"gcd", "math", "sqrt", "heapq"}) is uses


@pytest.mark.parametrize(
    "text", ["import " * 100_000, "a" * 10**6, "import " + "a," * 400_000, "from " + " " * 10**6, "." * 10**6]
)
def test_names_are_found_in_linear_time(text):
    with cpu_limit(10):
        uses_prelude(text, {"gcd"})
