"""The reward `code`: programs that must pass, tests that it reads, rewards, statuses and errors."""

import asyncio
import inspect
import json
import logging
import pickle
import time

import pytest
from trl.trainer.utils import is_async_callable

from rewards.programs.reward import Code
from rewards.programs.sandbox import backends, box, canaries
from rewards.programs.sandbox.box import Box, BoxError
from rewards.programs.test_cases import read_tests
from rewards.shared.batch import REWARDS
from tests.rewards.builders import block, call_tests, stdin_tests

WORKERS = 3


def statuses(pairs, **options):
    """The statuses of pairs of a program and its tests."""
    reward = Code(workers=WORKERS, **options)
    return [
        status for status, _ in reward.grade([block(program) for program, _ in pairs], [tests for _, tests in pairs])
    ]


def run(reward, completions, tests, **more):
    return asyncio.run(reward(completions, tests=tests, **more))


# Correct programs in common styles.

SQUARE = stdin_tests(("3\n", "9\n"), ("-4\n", "16\n"))


LISTED = stdin_tests(("3\n1 2 3\n", "6\n"), ("0\n\n", "0\n"))


READERS = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))",
    "input with an empty prompt": "n = int(input(''))\nprint(sum(map(int, input().split())))",
    "sys.stdin": "import sys\nn, *rest = sys.stdin.read().split()\nprint(sum(map(int, rest)))",
    "lines of sys.stdin": "import sys\nlines = [line for line in sys.stdin]\nprint(sum(map(int, lines[1].split())))",
    "readline": "from sys import stdin\nn = int(stdin.readline())\nprint(sum(map(int, stdin.readline().split())))",
    "open(0)": "n, *rest = open(0).read().split()\nprint(sum(map(int, rest)))",
    "sys.stdin.buffer": "import sys\nn, *rest = sys.stdin.buffer.read().split()\nprint(sum(map(int, rest)))",
    "os.read": "import os\nn, *rest = os.read(0, os.fstat(0).st_size).split()\nprint(sum(map(int, rest)))",
    "fileinput": "import fileinput\nlines = list(fileinput.input())\nprint(sum(map(int, lines[1].split())))",
    "map over int": "n = int(input())\na = list(map(int, input().split()))\nt = 0\nfor x in a: t += x\nprint(t)",
    "asyncio with streams": """
import asyncio, sys
async def main():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    lines = await loop.run_in_executor(None, sys.stdin.readlines)
    loop.call_later(0.01, event.set)
    await event.wait()
    print(sum(map(int, lines[1].split())))
asyncio.run(main())
""",
    "the guard of scripts": (
        "def main():\n    n = int(input())\n    print(sum(map(int, input().split())))\n\n"
        "if __name__ == '__main__':\n    main()"
    ),
    "exit": "input()\nprint(sum(map(int, input().split())))\nexit(0)",
    "quit": "input()\nprint(sum(map(int, input().split())))\nquit()",
    "sys.exit": "import sys\ninput()\nprint(sum(map(int, input().split())))\nsys.exit()",
    "os._exit": "import os\ninput()\nprint(sum(map(int, input().split())), flush=True)\nos._exit(0)",
    "output in one go": "import sys\ninput()\nsys.stdout.write(str(sum(map(int, input().split()))) + '\\n')",
    "output as bytes": "import sys\ninput()\nsys.stdout.buffer.write(b'%d' % sum(map(int, input().split())))",
    "os.write": "import os\ninput()\nos.write(1, b'%d\\n' % sum(map(int, input().split())))",
    "output kept until the end": (
        "import atexit, io, sys\nbuffer = io.StringIO()\nsys.stdout = buffer\n"
        "atexit.register(lambda: sys.__stdout__.write(buffer.getvalue()))\n"
        "input()\nprint(sum(map(int, input().split())))"
    ),
    "fast input and output": """
import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
    newlines = 0
    def __init__(self, file):
        self._fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.write = self.buffer.write if self.writable else None
    def readline(self):
        while self.newlines == 0:
            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
            self.newlines = b.count(b"\\n") + (not b)
            ptr = self.buffer.tell()
            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
        self.newlines -= 1
        return self.buffer.readline()
    def flush(self):
        if self.writable:
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)
class Wrapper(IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush = self.buffer.flush
        self.write = lambda s: self.buffer.write(s.encode())
        self.readline = lambda: self.buffer.readline().decode()
sys.stdin, sys.stdout = Wrapper(sys.stdin), Wrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip()
input()
print(sum(map(int, input().split())))
""",
    "printing from threads": """
import threading
input()
result = []
thread = threading.Thread(target=lambda: result.append(sum(map(int, input().split()))))
thread.start()
thread.join()
threading.Timer(0.1, lambda: print(result[0])).start()
""",
    "a large stack in a thread": """
import sys, threading
def main():
    def down(n): return n and 1 + down(n - 1)
    down(20_000)
    input()
    print(sum(map(int, input().split())))
sys.setrecursionlimit(10**6)
threading.stack_size(128 * 2**20)
thread = threading.Thread(target=main)
thread.start()
thread.join()
""",
    "a pool of threads": """
from concurrent.futures import ThreadPoolExecutor
input()
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(int, input().split())))
""",
    "asyncio": """
import asyncio
async def main():
    input()
    numbers = await asyncio.gather(*(asyncio.to_thread(int, text) for text in input().split()))
    await asyncio.sleep(0.01)
    print(sum(numbers))
asyncio.run(main())
""",
    "recursion": """
import sys
sys.setrecursionlimit(10**6)
def down(n): return n and 1 + down(n - 1)
assert down(50_000) == 50_000
input()
print(sum(map(int, input().split())))
""",
    "recursion through a cache": """
import sys
from functools import lru_cache
sys.setrecursionlimit(10**6)
@lru_cache(None)
def down(n): return n and 1 + down(n - 1)
assert down(50_000) == 50_000
input()
print(sum(map(int, input().split())))
""",
    "files": """
import os, tempfile
with open('/tmp/numbers', 'w') as file: file.write(open(0).read())
with open('numbers') as file: numbers = file.read().split()[1:]
with tempfile.TemporaryDirectory() as folder: os.makedirs(folder + '/a/b'); os.rename(folder + '/a', folder + '/c')
with tempfile.NamedTemporaryFile() as file: file.write(bytes(10**6))
os.remove('/tmp/numbers')
print(sum(map(int, numbers)))
""",
    "the standard library": """
import bisect, collections, copy, dataclasses, datetime, decimal, enum, fractions, functools, heapq, itertools, json
import math, operator, random, re, statistics, string, struct, time, typing, uuid, zlib, hashlib, array, cmath, sqlite3
@dataclasses.dataclass(order=True, frozen=True)
class Item:
    value: int
    name: str = dataclasses.field(default="x", compare=False)
class Kind(enum.Enum):
    A = enum.auto()
random.seed(1); random.shuffle(list(range(9)))
heap = [Item(int(text)) for text in re.findall(r'\\d+', open(0).read())[1:]]
heapq.heapify(heap)
total = decimal.Decimal(0)
while heap: total += heapq.heappop(heap).value
assert collections.Counter("aab").most_common(1) == [("a", 2)]
print(total)
""",
    "signals and an alarm": """
import signal
signal.signal(signal.SIGALRM, lambda *a: None)
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
input()
print(sum(map(int, input().split())))
""",
    "half a gigabyte": "x = bytearray(500 << 20)\ninput()\nprint(sum(map(int, input().split())))",
    "other white space": "input()\nprint(sum(map(int, input().split())), end='  \\r\\n\\n\\n')",
    "errors on stderr": "import sys\nprint('debug', file=sys.stderr)\ninput()\nprint(sum(map(int, input().split())))",
    "its own module": """
import __main__, sys
input()
__main__.numbers = input().split()
assert sys.modules[__name__] is __main__ and sys.argv == ['solution.py']
print(sum(map(int, numbers)))
""",
}


def test_correct_programs_that_read_standard_input_pass():
    got = dict(zip(READERS, statuses([(program, LISTED) for program in READERS.values()]), strict=True))
    assert got == dict.fromkeys(READERS, "ok")


FUNCTIONS = {
    "plain": "def f(x): return x * x",
    "that prints": "def f(x):\n    print('thinking', x)\n    return x * x",
    "that prints much": "def f(x):\n    for _ in range(10**5): print('thinking' * 10)\n    return x * x",
    "lambda": "f = lambda x: x * x",
    "method": "class Solution:\n    def f(self, x): return x * x",
    "method with a helper": "class Solution:\n    def f(self, x): return self.g(x)\n    def g(self, x): return x * x",
    "method with types": (
        "from typing import *\nclass Solution:\n    def f(self, x: int) -> Optional[int]: return x * x"
    ),
    "function beside a Solution": "class Solution: pass\ndef f(x): return x * x",
    "nested": "def outer():\n    def f(x): return x * x\n    return f\nf = outer()",
    "partial": "import functools, operator\nf = functools.partial(lambda y, x: x * x, 0)",
    "cached": "import functools\n@functools.cache\ndef f(x): return x * x",
    "with a demonstration": "def f(x): return x * x\nif __name__ == '__main__':\n    print(f(input()))\n    exit(1)",
    "that reads nothing": "import sys\nassert sys.stdin.read() == ''\ndef f(x): return x * x",
    "in threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(x):\n    with ThreadPoolExecutor(4) as pool: return sum(pool.map(lambda y: abs(x), range(abs(x))))"
    ),
    "whose result is a subclass": "class Number(int): pass\ndef f(x): return Number(x * x)",
    "whose result is of an enumeration": (
        "import enum\nN = enum.IntEnum('N', {'A': 9, 'B': 16})\ndef f(x): return N(x * x)"
    ),
    "whose result is a float": "def f(x): return float(x * x)",
    "coroutine run": "import asyncio\nasync def g(x): return x * x\ndef f(x): return asyncio.run(g(x))",
    "after global state": "seen = []\ndef f(x):\n    seen.append(x)\n    return x * x * len(seen)",
    "dataclass inside": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x).x * P(x=x).x"
    ),
}


def test_correct_functions_pass():
    tests = call_tests(([3], 9), ([-4], 16))
    got = dict(zip(FUNCTIONS, statuses([(program, tests) for program in FUNCTIONS.values()]), strict=True))
    assert got == dict.fromkeys(FUNCTIONS, "ok")


def test_common_forms_of_assertions_are_graded():
    suites = [
        "assert f(3) == 9",
        ["assert f(3) == 9", "assert f(-4) == 16"],
        "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(0) == 0\ncheck(f)",
        "import math\nassert math.isclose(f(1.5), 2.25, rel_tol=1e-9)",
        "assert f(2) == 4 and f(3) in (8, 9)\nassert abs(f(0.1) - 0.01) < 1e-9, 'close'",
        "assert f(x=3) == 9",
    ]
    assert statuses([("def f(x): return x * x", suite) for suite in suites]) == ["ok"] * len(suites)
    assert statuses([("def f(x): return x + x", suite) for suite in suites]) == ["wrong"] * len(suites)


def test_large_inputs_and_outputs_pass():
    numbers = " ".join(["123456"] * 750_000)  # 5 MB
    text = "x" * 99 + "\n"
    cases = [
        ("print(sum(map(int, input().split())))", stdin_tests((numbers, str(123456 * 750_000)))),
        ("print(('x' * 99 + '\\n') * 30_000)", stdin_tests(("", text * 30_000))),  # 3 MB
        ("for _ in range(30_000): print('x' * 99)", stdin_tests(("", text * 30_000))),
        ("def f(n): return ['x' * 99] * n", call_tests(([25_000], ["x" * 99] * 25_000))),
        ("def f(items): return len(items)", call_tests(([[1] * 500_000], 500_000))),
        ("def f(n): return 10**n", call_tests(([4000], 10**4000))),
    ]
    assert statuses(cases) == ["ok"] * len(cases)


def test_a_hundred_tests_of_one_program():
    cases = stdin_tests(*((f"{n}\n", f"{n * n}\n") for n in range(100)))
    assert statuses([("print(int(input()) ** 2)", cases)]) == ["ok"]


def test_values_that_can_be_iterated_over_leave_the_box():
    bodies = {
        "map(int, '23')": True,
        "zip([2], [3])": False,
        "range(2, 4)": True,
        "(n for n in (2, 3))": True,
        "{2: 0, 3: 0}.keys()": True,
        "{0: 2, 1: 3}.values()": True,
        "__import__('collections').deque([2, 3])": True,
        "(n for n in (2, 4))": False,
        "[2, 3]": True,
        "iter([2, 3, 1 / 0])": False,
    }
    pairs = [(f"def f(): return {body}", "assert list(f()) == [2, 3]") for body in bodies]
    got = statuses(pairs)
    assert [status == "ok" for status in got] == list(bodies.values()), got
    generator = "def f():\n    yield 2\n    yield 3"
    uses = [
        "sorted(f()) == [2, 3]",
        "sum(f()) == 5",
        "next(f()) == 2",
        "set(f()) == {2, 3}",
        "f() == [2, 3]",
        "len(f()) == 2",
    ]
    assert statuses([(generator, f"assert {use}") for use in uses]) == ["ok"] * 4 + ["wrong"] * 2
    assert statuses([(generator, call_tests(([], [2, 3])))]) == ["wrong"]  # a generator is no list


def test_fractions_and_decimals_equal_numbers():
    tests = ["assert f(1, 2) == 0.5", call_tests(([1, 2], 0.5)), call_tests(([3, 2], [1.5, 1.5]))]
    programs = [
        "from fractions import Fraction\ndef f(a, b): return Fraction(a, b) if a < b else [Fraction(a, b)] * 2",
        "from decimal import Decimal\ndef f(a, b): return Decimal(a) / b if a < b else (Decimal(a) / b,) * 2",
        "from decimal import Decimal\ndef f(a, b): return Decimal('NaN') if a < b else Decimal('sNaN')",
        "from fractions import Fraction\nclass Decimal(Fraction): __eq__ = lambda *given: True\n"
        "Decimal.__module__ = 'decimal'\ndef f(a, b): return Decimal(b, a)",
    ]
    got = [[statuses([(program, suite)])[0] for suite in tests] for program in programs]
    assert got == [["ok"] * 3, ["ok"] * 3, ["wrong"] * 3, ["wrong"] * 3]


@pytest.mark.slow
def test_an_endless_iterator_ends_at_a_limit():
    count = "import itertools\ndef f(): return itertools.count(2)"
    slow = "def f():\n    n = 1\n    while True:\n        n *= 3\n        yield n"
    assert statuses([(count, "assert next(f()) == 2"), (slow, "assert next(f()) == 3")]) == ["ok"] * 2
    islice = "import itertools\nassert list(itertools.islice(f(), 3)) == [2, 3, 4]"
    assert statuses([(count, islice), (slow, islice)]) == ["ok", "wrong"]
    start = time.monotonic()
    got = statuses([(count, "assert list(f()) == [2]"), (slow, "assert 3 in f()")], seconds=2)
    assert got[0] in ("wrong", "timeout") and got[1] in ("timeout", "died", "wrong")
    assert time.monotonic() - start < 60


def test_long_integers_pass():
    number = 10**5000
    power = "def f(n): return 10**n\nif __name__ == '__main__': print(f(int(input())))"
    parse = "n = int(input())\nassert n == 10**5000\nprint(str(n)[:2])"
    pairs = [(power, stdin_tests(("5000", "1" + "0" * 5000))), (power, call_tests(([5000], number)))]
    pairs += [(power, "assert f(5000) == 10**5000"), (power, "assert len(str(f(5000))) == 5001")]
    pairs += [(parse, stdin_tests(("1" + "0" * 5000, "10")))]
    assert statuses(pairs) == ["ok"] * len(pairs)


def test_an_output_within_the_tolerance_passes():
    tests = stdin_tests(("3", "0.333333333333")) | {"tol": 1e-6}
    assert statuses([("print(1 / int(input()))", tests), ("print(0.33334)", tests)]) == ["ok", "wrong"]


def test_a_tolerance_of_the_recipe_is_for_suites_that_give_none():
    third, program = stdin_tests(("3", "0.333333333333")), "print(1 / int(input()))"
    pairs = [(program, third), (program, third | {"tol": 0}), ("def f(x): return x / 3", call_tests(([1], 0.33333333)))]
    assert statuses(pairs, tol=1e-6) == ["ok", "wrong", "ok"]
    assert statuses(pairs) == ["wrong"] * 3
    with pytest.raises(ValueError, match="tol must be null or a finite number"):
        Code(tol=-1)


def test_deep_recursion_is_allowed():
    deep = "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nif __name__ == '__main__': print(f(20000))"
    endless = "def f(n): return f(n + 1)\nif __name__ == '__main__': print(f(0))"
    tests = stdin_tests(("", "20000"))
    assert statuses([(deep, tests), (deep, "assert f(9000) == 9000"), (endless, tests)]) == ["ok", "ok", "died"]


@pytest.mark.parametrize("name", ["f", "f()", "Solution.f", "Solution().f"])
def test_spellings_of_the_entry_point(name):
    program = block("class Solution:\n    def f(self, x): return x * x" if "S" in name else "def f(x): return x * x")
    suite = "def check(candidate): assert candidate(3) == 9"
    assert Code(workers=WORKERS).grade([program], [suite], [name]) == [("ok", 1.0)]


def test_the_block_that_defines_what_the_tests_call_is_graded():
    right, wrong, demonstration = block("def f(x): return x * x"), block("def f(x): return x"), block("print(f(3))")
    reward = Code(workers=WORKERS)
    texts = [right + "\n" + demonstration, demonstration + "\n" + right, wrong + "\n" + right, right + "\n" + wrong]
    suites = [call_tests(([3], 9)), "assert f(3) == 9", "def check(c): assert c(3) == 9\ncheck(f)"]
    for suite in suites:
        assert [status for status, _ in reward.grade(texts, [suite] * 4)] == ["ok", "ok", "ok", "wrong"]
    assert reward.grade([right + "\n```\n9\n```"], ["def check(c): assert c(3) == 9"], ["f"]) == [("ok", 1.0)]
    method = block("class Solution:\n    def f(self, x): return x * x")
    assert reward.grade([method + "\n" + block("print(Solution().f(3))")], [suites[0]]) == [("ok", 1.0)]


# The column `tests`.


def test_tests_may_be_json_text_and_have_unused_fields():
    wide = {"input": None, "output": None, "args": None, "expected": None}
    stdin_case, call_case = wide | {"input": "3", "output": "9"}, wide | {"args": [3], "expected": 9}
    columns = [
        SQUARE,
        json.dumps(SQUARE),
        " \n" + json.dumps(SQUARE, indent=1),
        {"type": "stdin", "fn_name": None, "tol": None, "cases": [stdin_case]},
        {"type": "call", "fn_name": "f", "tol": None, "cases": [call_case]},
        json.dumps(call_tests(([3], 9))),
    ]
    program = "def f(x): return x * x\nif __name__ == '__main__': print(f(int(input())))"
    assert statuses([(program, column) for column in columns]) == ["ok"] * len(columns)


def deep(depth):
    return "[" * depth + "]" * depth


UNREADABLE = {
    "nothing": None,
    "no text": "",
    "blank text": " \n",
    "a number": 3,
    "an empty list": [],
    "a list of numbers": [1, 2],
    "a list of cases without output": [{"input": "3"}],
    "an empty object": {},
    "an empty JSON object": "{}",
    "cut JSON": '{"type": "stdin", "cases": [',
    "deep JSON": '{"type": "stdin", "cases": ' + deep(10**5) + "}",
    "no cases": {"type": "stdin", "cases": []},
    "cases of None": {"type": "stdin", "cases": None},
    "cases that are an object": {"type": "stdin", "cases": {"input": "3", "output": "9"}},
    "cases that are text": {"type": "stdin", "cases": ["3", "9"]},
    "a case of None": {"type": "stdin", "cases": [{"input": "3", "output": "9"}, None]},
    "no type": {"cases": [{"input": "3", "output": "9"}]},
    "another type": {"type": "unit", "cases": [{"input": "3", "output": "9"}]},
    "a type that is a list": {"type": ["stdin"], "cases": [{"input": "3", "output": "9"}]},
    "no output": {"type": "stdin", "cases": [{"input": "3"}]},
    "output of None": stdin_tests(("3", None)),
    "a number as input": stdin_tests((3, "9")),
    "lines in a list": stdin_tests((["3"], ["9"])),
    "no name": {"type": "call", "cases": [{"args": [3], "expected": 9}]},
    "a name that is a call": call_tests(([3], 9), fn_name="f(3)"),
    "a dotted name": call_tests(([3], 9), fn_name="os.system"),
    "a name that is a number": call_tests(([3], 9), fn_name=3),
    "no args": {"type": "call", "fn_name": "f", "cases": [{"expected": 9}]},
    "args that are not a list": call_tests((3, 9)),
    "args of another type": call_tests(([object()], 9)),
    "args too deep": call_tests(([json.loads(deep(200))], 9)),
    "no expected value": {"type": "call", "fn_name": "f", "cases": [{"args": [3]}]},
    "an expected value of another type": call_tests(([3], range(9))),
    "an expected value too deep": call_tests(([3], json.loads(deep(200)))),
    "a tolerance that is text": call_tests(([3], 9), tol="1e-6"),
    "a negative tolerance": call_tests(([3], 9), tol=-1),
    "a tolerance that is not a number": call_tests(([3], 9), tol=float("nan")),
    "a tolerance that is true": call_tests(([3], 9), tol=True),
    "no assertion": "print(f(3))",
    "no Python": "f(3) should be 9",
    "a module that the sandbox does not have": "import pandas\nfor x in range(3): assert f(x) == x * x",
    "assertions and something else": ["assert f(3) == 9", "assert f(x) == 9"],
    "an assertion without a call": "assert 9 == 9",
    "JSON that is a list of cases without output": '[{"input": "3"}]',
}


@pytest.mark.parametrize("column", UNREADABLE.values(), ids=UNREADABLE)
def test_tests_that_cannot_be_read_give_no_gold_and_one_warning(column, caplog):
    with pytest.raises(ValueError) as error:
        read_tests(column)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    reward = Code(workers=WORKERS)
    with caplog.at_level(logging.WARNING):
        assert reward.grade(["no program"] * 3, [column, column, "assert f(3) == 9"]) == [
            ("no_gold", 0.0),
            ("no_gold", 0.0),
            ("unparsed", 0.0),
        ]
    (record,) = caplog.records
    assert "Tests that cannot be read are skipped: " in record.getMessage() and "\n" not in record.getMessage()
    assert reward.check_references([column, "assert f(3) == 9"]) == ["no_gold", "ok"]


def test_the_column_entry_point_names_the_function_to_test():
    suite = "def check(candidate):\n    assert candidate(3) == 9"
    programs = [block("def f(x): return x * x\ndef sum(x): return x")] * 4
    columns = {"tests": [suite] * 4, "entry_point": ["f", "sum", None, "g"]}
    reward = Code(workers=WORKERS)
    assert asyncio.run(reward(programs, **columns)) == [1.0, 0.0, None, 0.0]
    assert reward.check_references(**columns) == ["ok", "ok", "no_gold", "ok"]


def test_tests_that_differ_only_in_a_type_are_distinguished():
    """Equal tests of a batch are read once. These are not equal."""
    program = "def f(x): return {1: x}"
    pairs = [(program, call_tests(([3], expected))) for expected in ({1: 3}, {"1": 3}, {1: 3, "a": 2})]
    assert statuses(pairs) == ["ok", "wrong", "wrong"]
    assert statuses([("print(1)", json.dumps(stdin_tests(("", "1")))), ("print(1)", stdin_tests(("", "1")))]) == [
        "ok",
        "ok",
    ]


# The program of a completion.


def test_the_last_assistant_message_is_graded():
    right, wrong = block("print(int(input()) ** 2)"), block("print(1)")
    talks = [
        [{"role": "assistant", "content": right}],
        [
            {"role": "assistant", "content": wrong},
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": right},
        ],
        [{"role": "assistant", "content": right}, {"role": "assistant", "content": wrong}],
        [{"role": "assistant", "content": None}],
        [],
    ]
    assert run(Code(workers=WORKERS), talks, [SQUARE] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]


# Rewards, statuses and metrics.

HALF = stdin_tests(*((f"{n}", str(n * n if n % 2 else -1)) for n in range(1, 9)))


BATCH = {
    "ok": ("print(int(input()) ** 2)", SQUARE),
    "wrong": ("print(int(input()) ** 3)", SQUARE),
    "unparsed": (None, SQUARE),
    "timeout": ("while True: pass", SQUARE),
    "died": ("1 / 0", SQUARE),
    "no_gold": ("print(int(input()) ** 2)", None),
}


def test_rewards_statuses_and_metrics_reach_trl():
    columns, metrics = {}, {}
    completions = ["none" if program is None else block(program) for program, _ in BATCH.values()]
    reward = Code(workers=WORKERS, seconds=1)
    rewards = run(
        reward,
        completions,
        [tests for _, tests in BATCH.values()],
        prompts=["?"] * 6,
        trainer_state=None,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert rewards == [1.0, 0.0, 0.0, 0.0, 0.0, None] == [REWARDS[status] for status in BATCH]
    assert columns == {"code/status": list(BATCH)}
    assert metrics == {f"rewards/code/{status}": 1 / 6 if status in BATCH else 0.0 for status in REWARDS} | {
        "rewards/code/missing_layers": 0.0
    }


def test_partial_gives_the_fraction_of_tests_passed():
    square, mixed = "print(int(input()) ** 2)", "n = int(input())\nif n == 3: 1 / 0\nprint(n * n)"
    endless = "n = int(input())\nwhile n == 3: pass\nprint(n * n)"
    dead = "import os\nn = int(input())\nif n == 3: os.kill(os.getppid(), 9)\nprint(n * n)"
    columns = {}
    pairs = [(square, SQUARE), (square, HALF), (mixed, HALF), (endless, HALF), (dead, HALF), ("print(0)", HALF)]
    completions, tests = [block(program) for program, _ in pairs] + ["none"], [tests for _, tests in pairs] + [HALF]
    reward = Code(partial=True, workers=WORKERS, seconds=1)
    assert run(reward, completions, tests, log_extra=columns.__setitem__) == [1.0, 0.5, 3 / 8, 3 / 8, 1 / 8, 0.0, 0.0]
    assert columns["code/status"] == ["ok", "wrong", "wrong", "wrong", "wrong", "wrong", "unparsed"]
    assert run(Code(workers=WORKERS), completions[:2], tests[:2]) == [1.0, 0.0]
    assert run(reward, completions[:1], [None]) == [None]


def test_without_partial_the_tests_end_at_the_first_failure():
    tests = stdin_tests(("1", "2"), *[("sleep", "2")] * 50)
    start = time.monotonic()
    assert statuses([("import time\nif input() == 'sleep': time.sleep(60)\nprint(1)", tests)]) == ["wrong"]
    assert time.monotonic() - start < 30


def test_the_wall_clock_limit_of_all_tests_of_a_program():
    tests = stdin_tests(*[("", "")] * 50)
    start = time.monotonic()
    assert statuses([("import time; time.sleep(0.7)", tests)], total_seconds=1.5) == ["timeout"]
    assert time.monotonic() - start < 25


def test_a_failing_sandbox_gives_infra_and_stops_the_run(monkeypatch, caplog):
    def fail(request, total_seconds, line_bytes):
        if "fail" in request["program"]:
            raise BoxError("it is broken")
        return works(request, total_seconds, line_bytes)

    reward = Code(workers=WORKERS)
    backend = reward.box.ready().backend
    works = box._BACKENDS[backend]
    monkeypatch.setitem(box._BACKENDS, backend, fail)
    program, failing = block("print(int(input()) ** 2)"), block("fail")
    assert reward.grade([program, failing], [SQUARE] * 2) == [("ok", 1.0), ("infra", 0.0)]
    assert "The sandbox failed." in caplog.text and "it is broken" in caplog.text
    columns = {}
    with pytest.raises(
        RuntimeError, match=r"'code' could not grade 1 of 2 .*Run `python -m rewards\.box` to check"
    ) as stop:
        run(reward, [program, failing], [SQUARE] * 2, log_extra=columns.__setitem__)
    assert "\n" not in str(stop.value)
    assert columns == {"code/status": ["ok", "infra"]}
    unread = ["no program"] * 199  # 1 of 200 failures is tolerated
    assert run(reward, [failing, *unread], [SQUARE] * 200) == [None] + [0.0] * 199


def test_a_sandbox_that_fails_once_is_started_again(monkeypatch, caplog):
    def fail_once(request, total_seconds, line_bytes):
        if request["program"] not in failed:
            failed.append(request["program"])
            raise BoxError("it is busy")
        return works(request, total_seconds, line_bytes)

    reward, failed = Code(workers=WORKERS), []
    backend = reward.box.ready().backend
    works = box._BACKENDS[backend]
    monkeypatch.setitem(box._BACKENDS, backend, fail_once)
    suite = "for x in [3, 4]: assert f(x) == x * x"
    programs = [block("def f(x): return x * x"), block("def f(x): return 9")]
    assert run(reward, programs, [suite] * 2) == [1.0, 0.0]
    assert len(failed) == 3 and caplog.text.count("started again: it is busy") == 3  # the suite and the programs


def test_a_missing_layer_is_refused_or_counted_in_a_metric(monkeypatch):
    box._ready.cache_clear()
    monkeypatch.setattr(backends, "_filters", lambda: {"box_filter": "", "test_filter": ""})
    try:
        with pytest.raises(
            ValueError, match="The reward 'code' has no sandbox that is safe to use: .*new_processes"
        ) as refused:
            Code()
        assert "\n" not in str(refused.value) and "allow_missing" in str(refused.value)
        reward = Code(workers=WORKERS, allow_missing=list(canaries.LAYERS))
        metrics = {}
        rewards = run(reward, [block("print(9)")], [stdin_tests(("", "9"))], log_metric=metrics.__setitem__)
        assert rewards == [1.0] and metrics["rewards/code/missing_layers"] >= 1
    finally:
        box._ready.cache_clear()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"workers": 0}, "workers=0 leaves nothing to run programs in"),
        ({"sandbox": "docker"}, "sandbox='docker' is not available"),
        ({"allow_missing": ["net"]}, "allow_missing=net is not a layer"),
        ({"seconds": 0}, "seconds=0 would let no program run"),
        ({"total_seconds": 0}, "total_seconds=0 would let"),
        ({"memory_mb": 0}, "memory_mb=0 would let"),
        pytest.param({"memory_mb": 5}, "has no sandbox that is safe to use: ", marks=pytest.mark.slow),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(option, words):
    with pytest.raises(ValueError) as refused:
        Code(**option)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError):
        run(Code(), ["1", "2"], [SQUARE])


def test_a_pickled_copy_grades_and_trl_awaits_it():
    reward = Code(workers=2, seconds=2, allow_missing=["user"])
    copy = pickle.loads(pickle.dumps(reward))
    assert copy == reward and copy.box == Box(allow_missing=("user",), seconds=2)
    assert run(copy, [block("print(int(input()) ** 2)")], [SQUARE]) == [1.0]
    assert is_async_callable(reward) and inspect.iscoroutinefunction(type(reward).__call__)


def test_an_empty_batch():
    assert run(Code(), [], [], log_extra=lambda *a: None, log_metric=lambda *a: None) == []


def test_reference_programs_are_graded():
    reward = Code(workers=WORKERS)
    references = ["print(int(input()) ** 2)", "print(0)", "", None]
    assert reward.check_references([SQUARE] * 4, reference=references, prompt=["?"] * 4) == [
        "ok",
        "wrong",
        "wrong",
        "wrong",
    ]
    assert reward.check_references([SQUARE, None, "assert f(1)"]) == ["ok", "no_gold", "ok"]


# Expected values never enter the box.


def test_no_expected_value_enters_the_box(monkeypatch):
    sent = []

    def converse(command, request, *rest):
        sent.append((command, request))
        return talk(command, request, *rest)

    secret, number = "the secret answer", 918273645
    suites = [
        stdin_tests(("3", secret)),
        call_tests(([3], secret), ([4], [number])),
        f"assert f(3) == {secret!r}, {secret!r}\nassert f(4) == [{number}]\nassert {number} in f(5)",
    ]
    reward = Code(workers=WORKERS)
    talk = backends._converse
    monkeypatch.setattr(backends, "_converse", converse)
    monkeypatch.setenv("SECRET", secret)
    assert reward.grade([block("def f(x): pass")] * 3, suites) == [("wrong", 0.0)] * 3
    assert len(sent) == 3
    for command, request in sent:
        everything = json.dumps([command, request])
        assert secret not in everything and str(number) not in everything and hex(number) not in everything
    assert secret not in str(backends._ENVIRONMENT)


def test_a_program_may_run_many_threads_at_once():
    program = (
        "import threading\nfound, gate = [], threading.Barrier(81)\n"
        "def work(x):\n    found.append(bytearray(1000) and x)\n    gate.wait()\n"
        "threads = [threading.Thread(target=work, args=(x,)) for x in range(80)]\n"
        "for thread in threads: thread.start()\ngate.wait()\nprint(sum(found))"
    )
    assert Code(workers=1).grade([block(program)], [stdin_tests(("", "3160"))]) == [("ok", 1.0)]  # 79 * 80 / 2
