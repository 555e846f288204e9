"""Suites that run in a box of their own: what they may use, what they pay, and what they do not pay."""

import logging

import pytest

from rewards.programs.reward import Code
from rewards.programs.sandbox.box import Box
from rewards.programs.test_cases import describe_tests, read_tests
from tests.rewards.builders import block


def statuses(suite, *programs, entry_point=None, **options):
    """The status of each program on a suite."""
    count = len(programs)
    reward = Code(workers=2, **options)
    return [status for status, _ in reward.grade(list(map(block, programs)), [suite] * count, [entry_point] * count)]


FORGED = """
class Forged:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 9218
    def __contains__(self, other): return True
    def __call__(self, *args): return True
    def __getattr__(self, name): return Forged()
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    __lt__ = __gt__ = __le__ = __ge__ = __eq__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __abs__(self): return 0
"""
# name -> a suite, a right program, wrong programs
SUITES = {
    "raises, approx and parametrize": (
        """
import pytest
from solution import NegativeError, root

def test_value():
    assert root(16) == pytest.approx(4.0000000001)
    assert [root(4), root(9)] == pytest.approx([2, 3])

def test_error():
    with pytest.raises(NegativeError, match="negative") as info:
        root(-1)
    assert info.type is NegativeError and isinstance(info.value, ValueError)

@pytest.mark.parametrize("x, y", [(1, 1), (4, 2), pytest.param(81, 9)])
@pytest.mark.parametrize("times", [1, 2])
def test_many(x, y, times):
    assert times * root(x) == times * y
""",
        "class NegativeError(ValueError): pass\ndef root(x):\n"
        "    if x < 0: raise NegativeError('negative')\n    return x ** 0.5",
        [
            "class NegativeError(ValueError): pass\ndef root(x):\n"
            "    if x < 0: raise ValueError('negative')\n    return x ** 0.5",
            "class NegativeError(ValueError): pass\ndef root(x):\n"
            "    if x < 0: raise NegativeError('no')\n    return x ** 0.5",
            "class NegativeError(ValueError): pass\ndef root(x):\n    raise NegativeError('negative')",
            "class NegativeError(ValueError): pass\ndef root(x):\n"
            "    if x < 0: raise NegativeError('negative')\n    return 9",
        ],
    ),
    "errors of the standard library": (
        """
import dataclasses
import json
import pytest
import statistics
from decimal import InvalidOperation
from solution import Point, mean, number, read

def test_read():
    with pytest.raises(json.JSONDecodeError, match="Expecting value") as info:
        read("[1, ")
    assert info.value.pos == 4
    with pytest.raises(statistics.StatisticsError):
        mean([])
    with pytest.raises(InvalidOperation):
        number("x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(3).x = 4
    with pytest.raises(UnicodeDecodeError, match="utf-8"):
        read(b'"\\xff"')
""",
        "import json, statistics, dataclasses\nfrom decimal import Decimal as number\nmean = statistics.mean\n"
        "@dataclasses.dataclass(frozen=True)\nclass Point:\n    x: int\n"
        "def read(text): return json.loads(text if isinstance(text, str) else text.decode())",
        [
            "import json, statistics, dataclasses\nfrom decimal import Decimal as number\n"
            f"@dataclasses.dataclass{frozen}\nclass Point:\n    x: int\n"
            f"def mean(x): {mean}\n"
            "def read(text):\n    try:\n        return json.loads(text if isinstance(text, str) else text.decode())\n"
            f"    except json.JSONDecodeError as error:\n        {read}"
            for frozen, mean, read in [
                ("", "return statistics.mean(x)", "raise"),
                ("(frozen=True)", "raise ValueError('empty')", "raise"),
                ("(frozen=True)", "return statistics.mean(x)", "raise ValueError('Expecting value')"),
                ("(frozen=True)", "return statistics.mean(x)", "error.pos = 3; raise"),
            ]
        ],
    ),
    "attributes of an error": (
        """
import pytest
from solution import TooLarge, check

def test_check():
    with pytest.raises(TooLarge, match="7 > 5") as info:
        check(7)
    assert info.value.limit == 5 and info.value.where == ["check"]
""",
        "class TooLarge(Exception):\n    def __init__(self, x, limit):\n        super().__init__(f'{x} > {limit}')\n"
        "        self.limit, self.where = limit, ['check']\ndef check(x): raise TooLarge(x, 5)",
        [
            "class TooLarge(Exception): pass\ndef check(x): raise TooLarge('7 > 5')",
            "class TooLarge(Exception):\n    __eq__ = lambda self, other: True\n    __getattr__ = lambda *names: 5\n"
            "    limit = where = property(lambda self: self)\ndef check(x): raise TooLarge('7 > 5')",
        ],
    ),
    "fractions, decimals and dates": (
        """
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from solution import halved, later

def test_halved():
    assert halved(Fraction(1, 3)) == Fraction(1, 6)
    assert halved(Decimal("0.25")) == Decimal("0.125")
    assert halved(timedelta(hours=3)) == timedelta(minutes=90)

def test_later():
    assert later({"on": [date(2023, 2, 28)]}) == {"on": [date(2023, 3, 1)]}
    assert later({"on": [datetime(2024, 2, 28, 7, tzinfo=timezone.utc)]})["on"][0].day == 29
""",
        "from datetime import timedelta\ndef halved(x): return x / 2\n"
        "def later(days): return {'on': [days['on'][0] + timedelta(days=1)]}",
        [
            "from datetime import timedelta\ndef halved(x): return x / 3\n"
            "def later(days): return {'on': [days['on'][0] + timedelta(days=1)]}",
            "class Fraction:\n    __module__ = 'fractions'\n    numerator, denominator = 1, 0\n"
            "    __eq__ = lambda self, other: True\ndef halved(x): return Fraction()\ndef later(x): return Fraction()",
            "def halved(x): return x / 2\ndef later(days): return days",
        ],
    ),
    "a class, its methods and its length": (
        """
from solution import Stack
import pytest

class TestStack:
    def setup_method(self):
        self.stack = Stack()

    def test_push(self):
        self.stack.push(3)
        self.stack.push([4])
        assert len(self.stack) == 2 and self.stack.pop() == [4] and self.stack.pop() == 3

    def test_empty(self):
        assert isinstance(self.stack, Stack) and not self.stack.items
        with pytest.raises(IndexError):
            self.stack.pop()
""",
        "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)",
        [
            "class Stack:\n    items = []\n    def push(self, x): pass\n"
            "    def pop(self): return [4]\n    def __len__(self): return 2",
        ],
    ),
    "classes that extend builtin ones": (
        """
from solution import Cache, Colour, Heap, Pair, Temperature

def test_cache():
    cache = Cache(2)
    cache.put(1, 5), cache.put(2, 6), cache.get(1), cache.put(3, 7)
    assert cache.get(1) == 5 and cache.get(2) == -1 and cache == {1: 5, 3: 7}

def test_heap():
    heap = Heap.of([8, 3])
    heap.put(5)
    assert isinstance(heap, list) and heap != [8, 3] and heap[0] == 3 and len(heap) == 3 and 8 in heap
    assert heap.take() == 3 and sorted(heap) == [5, 8]

def test_pair():
    assert Pair(4, 9).right == 9 and Pair(4, 9) == (4, 9) == Pair(4, 9) and {Pair(4, 9): 1} == {(4, 9): 1}

def test_temperature():
    assert Temperature(3.5) + 1 == 4.5 and 2 * Temperature(4) == 8 and Temperature(0).fahrenheit == 32
    assert Temperature(3) < 4 and abs(Temperature(-3)) == 3

def test_colour():
    assert Colour.RED == "red" and Colour("red").name == "RED" and Colour.RED.upper() == "RED"
""",
        CLASSES := """
from collections import OrderedDict, namedtuple
import enum, heapq
class Cache(OrderedDict):
    def __init__(self, size): self.size = size
    def get(self, key):
        if key not in self: return -1
        self.move_to_end(key)
        return self[key]
    def put(self, key, value):
        self[key] = value
        self.move_to_end(key)
        if len(self) > self.size: self.popitem(last=False)
class Heap(list):
    @classmethod
    def of(cls, items):
        heap = cls(items)
        heapq.heapify(heap)
        return heap
    def put(self, x): heapq.heappush(self, x)
    def take(self): return heapq.heappop(self)
Pair = namedtuple("Pair", "left right")
class Temperature(float):
    fahrenheit = property(lambda self: self * 9 / 5 + 32)
class Colour(str, enum.Enum):
    RED = "red"
""",
        [
            CLASSES.replace("last=False", "last=True"),
            CLASSES.replace("heapq.heappush(self, x)", "pass"),
            CLASSES.replace("left right", "right left"),
            CLASSES.replace("* 9 / 5 + 32", "+ 33"),
            CLASSES.replace('"red"', '"Red"'),
            CLASSES.replace(
                "(float):",
                "(float):\n    __eq__ = __lt__ = lambda self, other: True\n"
                "    def __new__(cls, x): return float.__new__(cls, 9)",
            ),
        ],
    ),
    "named tuples and enumerations that a function returns": (
        """
from solution import Kind, Level, Token, Word, at, read, words

def test_tokens():
    tokens = read("7 +")
    assert [(token.kind, token.count) for token in tokens] == [(Kind.NUMBER, 1), (Kind.SIGN, 2)]
    assert tokens[0] == Token(Kind.NUMBER, 1) == (Kind.NUMBER, 1) and isinstance(tokens[0], Token)
    assert tokens[1].kind is Kind.SIGN and tokens[1].kind.name == "SIGN" and tokens[1].name() == "sign"
    kind, count = tokens[1]
    assert (kind.upper(), count, len(tokens[1]), tokens[1][1]) == ("SIGN", 2, 2, 2) and "ig" in kind
    assert str(tokens[1].kind.value) == "sign" and {Kind.SIGN: 3} == {kind: 3}

def test_words():
    assert words("a b a") == {("a", 2), ("b", 1)} == {Word("b", 1), Word("a", 2)}
    assert {word.text for word in words("b")} == {"b"}

def test_levels():
    assert at(9) is Level.HIGH and at(1).name == "LOW" and at(9) > 1 and sorted([at(9), at(1)])[0] == 0
""",
        NAMED := """
from collections import namedtuple
import collections, enum, typing
Kind = enum.Enum("Kind", {"NUMBER": "number", "SIGN": "sign"}, type=str)
Word = namedtuple("Word", "text count")
class Level(enum.IntEnum):
    LOW = 0
    HIGH = 2
class Token(typing.NamedTuple):
    kind: Kind
    count: int
    def name(self): return self.kind.value
def read(text):
    kinds = [Kind.NUMBER if part.isdigit() else Kind.SIGN for part in text.split()]
    return [Token(kind, n + 1) for n, kind in enumerate(kinds)]
def words(text): return {Word(*item) for item in collections.Counter(text.split()).items()}
def at(x): return Level.HIGH if x > 5 else Level.LOW
""",
        [
            NAMED.replace("return [Token(", "return [("),
            NAMED.replace('"sign"', '"Sign"'),
            NAMED.replace("n + 1", "n + 2"),
            NAMED.replace("Word(*item) for", "Word(item[0], 1) for"),
            NAMED.replace("x > 5", "x > 9"),
            NAMED.replace("Level.HIGH if", "2 if"),
        ],
    ),
    "counters and other dicts": (
        """
from collections import Counter, OrderedDict, defaultdict, namedtuple
from solution import count, fill, first, total
Point = namedtuple("Point", "x y")

def test_results():
    assert count("aab") == Counter("aab") and count("aab").most_common(1) == [("a", 2)] and count("")["z"] == 0
    assert isinstance(first("ba"), OrderedDict) and first("ba") == OrderedDict(b=1, a=1) != OrderedDict(a=1, b=1)
    groups = fill(defaultdict(list), "ab")
    assert groups["a"] == [1] and groups["c"] == [] and groups.default_factory is not None

def test_arguments():
    groups, counts, order = defaultdict(list), Counter(), OrderedDict(a=[])
    fill(groups, "a"), fill(order, "a"), counts.update(count("b"))
    assert groups == {"a": [1]} and order == OrderedDict(a=[1]) and total(counts) == 1
    assert total([Point(3, 4), Point(x=5, y=6)]) == 8
""",
        DICTS := """
from collections import Counter, OrderedDict
def count(text): return Counter(text)
def first(text): return OrderedDict((letter, 1) for letter in text)
def fill(groups, text):
    for letter in text: groups[letter].append(1)
    return groups
def total(items): return items.total() if isinstance(items, Counter) else sum(item.x for item in items)
""",
        [
            DICTS.replace("return Counter(text)", "return dict(Counter(text))"),
            DICTS.replace("in text)", "in sorted(text))"),
            DICTS.replace("append(1)", "append(2)"),
            DICTS.replace("item.x for", "item.y for"),
        ],
    ),
    "functions, iterators and other arguments": (
        """
import operator
from collections import deque
from decimal import Decimal
from solution import applied, Bag, fold, kept, tail, turn

def test_functions():
    assert applied(lambda x, by=3: [x * by for _ in range(2)], 4) == [12, 12]
    assert applied(len, "abc") == 3 and applied(int, "7") == 7 and applied(Decimal, "1.5") == Decimal("1.5")
    assert fold(operator.add, range(4)) == 6

def test_one_function_is_one_object():
    def negative(x): return -x
    bag = Bag()
    bag.put(negative)
    assert bag.has(negative) and not bag.has(lambda x: -x)

def test_iterators():
    assert fold(max, (x % 5 for x in range(8))) == 4 and fold(min, map(int, "29")) == 2

def test_deques():
    queue = deque([1, 2, 3], 3)
    turn(queue)
    assert queue == deque([2, 3, 1]) and tail(queue) == deque([3, 1]) and tail(bytearray(b"abc")) == bytearray(b"bc")
    assert tail(range(5)) == range(1, 5)

def test_slices():
    assert Bag()[1:3] == [6, 7]

def test_errors():
    assert kept([1, 0, 2], lambda x: 1 / x, ZeroDivisionError) == [1, 2]
""",
        ARGUMENTS := """
import functools
def applied(f, x): return f(x)
def fold(f, items): return functools.reduce(f, items)
def turn(queue): queue.rotate(-1)
def tail(items): return items[1:] if not hasattr(items, "popleft") else (items.popleft(), items)[1]
def kept(items, f, error):
    def fits(x):
        try: f(x)
        except error: return False
        return True
    return [x for x in items if fits(x)]
class Bag:
    def __init__(self): self.items = []
    def put(self, x): self.items.append(x)
    def has(self, x): return x in self.items
    def __getitem__(self, key): return [5, 6, 7, 8][key]
""",
        [
            ARGUMENTS.replace("return f(x)", "return 3"),
            ARGUMENTS.replace("x in self.items", "True"),
            ARGUMENTS.replace("functools.reduce(f, items)", "max(items)"),
            ARGUMENTS.replace("rotate(-1)", "rotate(1)"),
            ARGUMENTS.replace("5, 6, 7, 8", "5, 6, 8, 8"),
            ARGUMENTS.replace("[1:]", "[:]"),
        ],
    ),
    "arithmetic with an instance": (
        """
import copy
from solution import Vector

def test_vector():
    assert (Vector(2, 1) * 3).x == 6 and (3 * Vector(2, 1)).y == 3 and (Vector(2, 1) + Vector(1, 1)).x == 3
    assert (-((Vector(2, 1) + Vector(1, 1)) * 2)).x == -6

def test_in_place():
    a = b = Vector(2, 1)
    a += Vector(1, 1)
    a -= 1
    assert (a.x, a.y) == (2, 1) and a is b

def test_copies():
    a = Vector([1], 2)
    shallow, deep = copy.copy(a), copy.deepcopy(a)
    shallow.y = 5
    a.push(3)
    assert (a.x, a.y, shallow.x, shallow.y, deep.x, deep.y) == ([1, 3], 2, [1, 3], 5, [1], 2)
""",
        VECTOR := "class Vector:\n    def __init__(self, x, y): self.x, self.y = x, y\n"
        "    def __mul__(self, by): return Vector(by * self.x, by * self.y)\n    __rmul__ = __mul__\n"
        "    def __neg__(self): return -1 * self\n    def push(self, item): self.x.append(item)\n"
        "    def __add__(self, other): return Vector(self.x + other.x, self.y + other.y)\n"
        "    def __iadd__(self, other):\n        self.x, self.y = self.x + other.x, self.y + other.y\n"
        "        return self\n"
        "    def __isub__(self, by):\n        self.x, self.y = self.x - by, self.y - by\n        return self\n",
        [
            VECTOR.replace("-1 * self", "self"),
            VECTOR.replace("        return self\n    def __isub__", "    def __isub__"),
            VECTOR + "    __deepcopy__ = lambda self, memo: self",
            "class Vector:\n    def __init__(self, x, y): self.x, self.y = x, y\n"
            "    __mul__ = __rmul__ = __add__ = max",
        ],
    ),
    "a program that reads its annotations": (
        "from solution import Number\n\ndef test_number():\n    assert Number(3).x == 3\n",
        "class Number:\n    x: int\n    def __init__(self, x):\n"
        "        self.x = x if isinstance(x, self.__annotations__['x']) else None",
        [
            "class Number:\n    x: str\n    def __init__(self, x):\n"
            "        self.x = x if isinstance(x, self.__annotations__['x']) else None"
        ],
    ),
    "unittest": (
        """
import unittest
from solution import up

class Cases(unittest.TestCase):
    def test_text(self):
        self.assertEqual(up("ab"), "AB")

    def test_number(self):
        with self.assertRaises(TypeError):
            up(3)

if __name__ == "__main__":
    unittest.main()
""",
        "def up(s):\n    if not isinstance(s, str): raise TypeError\n    return s.upper()",
        ["def up(s): return 'AB'", "def up(s): raise TypeError"],
    ),
    "a class of tests with a base of its own": (
        "import unittest\nfrom solution import up\n\nclass Base(unittest.TestCase):\n"
        "    def up(self, text): return up(text)\n\nclass Cases(Base):\n"
        "    def test_text(self): self.assertEqual(self.up('ab'), 'AB')\n",
        "def up(s): return s.upper()",
        ["def up(s): return s"],
    ),
    "tests that a class inherits": (
        "import unittest\nfrom solution import up\n\nclass Base(unittest.TestCase):\n    text = 'A'\n"
        "    def test_up(self): self.assertEqual(up(self.text), self.text.upper())\n\n"
        "class Cases(Base):\n    text = 'b'\n",
        "def up(s): return s.upper()",
        ["def up(s): return s"],
    ),
    "tests from a mixin": (
        "import unittest\nfrom solution import up\n\nclass Shared:\n"
        "    def test_up(self): self.assertEqual(up('a'), 'A')\n\nclass Cases(Shared, unittest.TestCase): pass\n",
        "def up(s): return s.upper()",
        ["def up(s): return s"],
    ),
    "tests below a condition and in a class of a class": (
        "import sys\nfrom solution import up\n\ndef test_type():\n    assert isinstance(up('a'), str)\n\n"
        "if sys.version_info > (3,):\n    def test_one():\n        assert up('b') == 'B'\n\n"
        "class TestUp:\n    class TestMore:\n        def test_two(self):\n            assert up('c') == 'C'\n",
        "def up(s): return s.upper()",
        ["def up(s): return 'B'", "def up(s): return 'C'"],
    ),
    "a variable of the program that the suite sets": (
        "import solution\n\ndef test_limit():\n    solution.LIMIT = 4\n"
        "    assert solution.capped(9) == 4 and solution.LIMIT == 4\n\n"
        "def test_default():\n    assert solution.capped(99) == 50\n",
        "LIMIT = 50\ndef capped(x): return min(x, LIMIT)",
        ["LIMIT = 50\ndef capped(x): return 50 if x > 50 else x", "LIMIT = 4\ndef capped(x): return min(x, LIMIT)"],
    ),
    "a change in place": (
        "from solution import turn\n\ndef test_turn():\n"
        "    x = [1, [2], 3]\n    turn(x)\n    assert x == [3, [2], 1]\n",
        "def turn(x): x.reverse()",
        ["def turn(x): return x[::-1]", "def turn(x): x.clear()"],
    ),
    "attributes that the suite changes in place": (
        """
from solution import Shop

def test_shop():
    shop = Shop()
    shop.sold.append(4)
    shop.prices["tea"] = [3]
    assert shop.total() == 4
    names = shop.names
    names.add("tea")
    shop.prices["tea"].append(5)
    assert shop.most("tea") == 5 and shop.names == set() and shop.sold == [4]
    shop.sold += [6]
    shop.prices.clear()
    assert shop.total() == 10 and shop.prices == {}
""",
        "class Shop:\n    def __init__(self): self.sold, self.prices = [], {}\n"
        "    names = property(lambda self: set(self.prices) - {'tea'})\n"
        "    def total(self): return sum(self.sold)\n    def most(self, name): return max(self.prices[name])",
        [
            "class Shop:\n    sold, prices, names = [4], {}, set()\n    def total(self): return 4\n"
            "    def most(self, name): return 5",
            "class Shop:\n    names, sold = set(), property(lambda self: [])\n"
            "    def __init__(self): self.prices = {}\n"
            "    def total(self): return sum(self.sold)\n    def most(self, name): return max(self.prices[name])",
        ],
    ),
    "a change in place by a function that returns something": (
        """
from solution import dedupe, push

def test_number_of_items():
    x = [4, 4, 7]
    assert dedupe(items=x) == 2 and x[:2] == [4, 7]

def test_same_list():
    x, y = [3], [5]
    assert push(x, 8) is x and x == [3, 8] and y == [5]

def test_dict_in_a_list():
    x = [{"a": 1}, {"b": 2}]
    push(x[0], 9)
    assert x == [{"a": 1, 9: 9}, {"b": 2}]
""",
        "def dedupe(items):\n    items[:] = sorted({*items})\n    return len(items)\n"
        "def push(x, y):\n    x.append(y) if isinstance(x, list) else x.update({y: y})\n    return x",
        [
            "def dedupe(items): return 2\ndef push(x, y):\n"
            "    x.append(y) if isinstance(x, list) else x.update({y: y})\n    return x",
            "def dedupe(items):\n    items[:] = sorted({*items})\n    return len(items)\n"
            "def push(x, y): return x + [y] if isinstance(x, list) else x | {y: y}",
        ],
    ),
    "an argument that must stay as it is": (
        "from solution import ordered\n\ndef test_ordered():\n"
        "    x = [3, 1, 2]\n    assert ordered(x) == [1, 2, 3] and x == [3, 1, 2]\n",
        "def ordered(x): return sorted(x)",
        ["def ordered(x):\n    x.sort()\n    return x", "def ordered(x):\n    x.sort()\n    return x[:]"],
    ),
    "a test that is not skipped": (
        "import pytest, sys\nfrom solution import f\n\n@pytest.mark.skipif(sys.version_info < (3, 5), reason='old')\n"
        "def test_f():\n    assert f(3) == 6\n",
        "def f(x): return 2 * x",
        ["def f(x): return x"],
    ),
    "fixtures": (
        """
import pytest
from solution import Box

@pytest.fixture
def value():
    yield 5

@pytest.fixture()
def box(value):
    return Box(value)

def test_box(box):
    assert box.value == 5
    box.value = 7
    assert box.value == 7
""",
        "class Box:\n    def __init__(self, value): self.value = value",
        ["class Box:\n    value = 5\n    def __init__(self, value): pass\n    def __setattr__(self, *given): pass"],
    ),
    "fixtures of a class, and one that every test uses": (
        """
import pytest
from solution import Queue

@pytest.fixture
def queue():
    return Queue()

@pytest.fixture
def filled(queue):
    queue.push(8)

class TestQueue:
    @pytest.fixture(autouse=True)
    def prepare(self):
        self.extra = 5

    @pytest.fixture
    def more(self):
        return 6

    def test_queue(self, queue, filled, more):
        queue.push(self.extra)
        queue.push(more)
        assert [queue.pop(), queue.pop(), queue.pop()] == [8, 5, 6]
""",
        "class Queue:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
        "    def pop(self): return self.items.pop(0)",
        [
            "class Queue:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
            "    def pop(self): return self.items.pop()",
        ],
    ),
    "functions that set up": (
        """
import pytest
from solution import scale

def setup_module(module):
    global FACTOR
    FACTOR = 3

def setup_function():
    global OFFSET
    OFFSET = 4

def test_function():
    assert scale(FACTOR) + OFFSET == 34

class TestScale:
    @classmethod
    def setup_class(cls):
        cls.given = 5

    @pytest.mark.parametrize(argnames="more", argvalues=[0, 1])
    def test_method(self, more):
        assert scale(self.given + more) == 10 * self.given + 10 * more
""",
        "def scale(x): return 10 * x",
        ["def scale(x): return 30", "def scale(x): return 50"],
    ),
    "with, in, and threads": (
        """
import threading
from solution import Register

def test_with():
    with Register() as register:
        register.add(4)
        assert register.names == [4]
    assert register.closed

def test_in():
    register = Register()
    register.add(5)
    assert 5 in register and 6 not in register

def test_threads():
    register = Register()
    threads = [threading.Thread(target=register.add, args=(name,)) for name in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert sorted(register.names) == list(range(20))
""",
        "class Register:\n    def __init__(self): self.names, self.closed = [], False\n"
        "    def __enter__(self): return self\n    def __exit__(self, *error): self.closed = True\n"
        "    def __getitem__(self, place): return 0\n    def __contains__(self, name): return name in self.names\n"
        "    def add(self, name): self.names.append(name)",
        [
            # its `__exit__` hides errors
            "class Register:\n    names, closed = [], True\n    def __enter__(self): return self\n"
            "    def __exit__(self, *error): return True\n    def add(self, name): pass",
            "class Register:\n    def __init__(self): self.names, self.closed = [], False\n"
            "    def __enter__(self): return self\n    def __exit__(self, *error): self.closed = True\n"
            "    def __contains__(self, name): return True\n    def add(self, name): self.names.append(name)",
        ],
    ),
    "near arrays": (
        """
import numpy as np
for given, wanted in [(1, 0.33333333), (2, [0.5, 0.25])]:
    found = share(given)
    if found != wanted:
        np.testing.assert_allclose(found, wanted, rtol=1e-07, atol=1e-6)
        assert np.allclose(found, wanted, rtol=1e-07, atol=1e-6)
""",
        "def share(x): return 1 / 3 if x == 1 else [0.5, 0.2500001]",
        [
            "def share(x): return []",  # with numpy, an empty list is near every number
            "def share(x): return [1 / 3] if x == 1 else [0.5, 0.25]",
            "def share(x): return 1 / 3 if x == 1 else [0.5]",
            "def share(x): return 1 / 3 if x == 1 else [0.5, 0.26]",
        ],
    ),
    "iterators": (
        "from solution import g\n\ndef test_g():\n"
        "    assert list(g(3)) == [0, 1, 2] and next(g(2)) == 0 and g(1) != [0]\n"
        "    for a, b in zip(g(9), range(4)):\n        assert a == b\n",
        "def g(n):\n    i = 0\n    while i < n or n == 9:\n        yield i\n        i += 1",
        ["def g(n): return list(range(n))"],
    ),
    "linked nodes": (
        """
from solution import Node, turn

def nodes(values):
    head = None
    for value in reversed(values):
        head = Node(value, head)
    return head

def values(node):
    return [] if node is None else [node.val, *values(node.next)]

def test_turn():
    assert values(turn(nodes([1, 2, 3]))) == [3, 2, 1]
    assert turn(None) is None
""",
        "class Node:\n    def __init__(self, val, next): self.val, self.next = val, next\n"
        "def turn(head):\n    last = None\n"
        "    while head: head.next, last, head = last, head, head.next\n    return last",
        [
            "class Node:\n    def __init__(self, val, next): self.val, self.next = val, next\n"
            "def turn(head): return head"
        ],
    ),
    "nodes of a class of the suite": (
        """
from typing import *

class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def nodes(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def values(node):
    found = []
    while node and len(found) < 999:
        found.append(node.val)
        node = node.next
    return found

def check(candidate):
    assert values(candidate(head = nodes([4, 1, 5]))) == [5, 1, 4]
    assert candidate(nodes([])) is None
    head = nodes(range(500))
    last = head.next
    assert values(candidate(head)) == list(range(500))[::-1] and values(last) == [1, 0]
check(Solution().turn)
""",
        NODES := "class Solution:\n    def turn(self, head: Optional[ListNode]) -> Optional[ListNode]:\n"
        "        last = None\n        while head: head.next, last, head = last, head, head.next\n        return last",
        [
            NODES.replace("return last", "return head"),
            "import copy\n" + NODES.replace("last = None", "last, head = None, copy.deepcopy(head)"),
            FORGED + "class ListNode:\n    val, next, __init__ = Forged(), None, lambda *given: None\n"
            "class Solution:\n    def turn(self, head): return ListNode() if head else None",
            FORGED + "class Solution:\n    def turn(self, head):\n        node = head\n"
            "        while node: node.val, node = Forged(), node.next\n        return head",
            FORGED + "class Solution:\n    def turn(self, head): return Forged()",
        ],
    ),
    "a dataclass and a graph of the suite": (
        """
from __future__ import annotations
from dataclasses import dataclass, field
import solution

@dataclass(frozen=True)
class Item:
    name: str
    price: int = 0

class Node:
    def __init__(self, val, neighbours=None):
        self.val, self.neighbours = val, neighbours or []

class Reference:
    def total(self, items): return sum(item.price for item in items)

def test_items():
    items = [Item("a", 4), Item("b", 9)]
    assert solution.total(items) == Reference().total(items) and solution.dearest(items) is items[1]
    assert solution.dearest(items) == Item("b", 9) != Item("b", 8)

def test_graph():
    a, b = Node(1), Node(2)
    a.neighbours, b.neighbours = [b], [a]
    other = solution.clone(a)
    assert other is not a and other.neighbours[0].neighbours[0] is other and other.neighbours[0].val == 2
""",
        GRAPH := "import copy\nclone = copy.deepcopy\n"
        "def dearest(items): return max(items, key=lambda item: item.price)\n"
        "def total(items): return sum(item.price for item in items)",
        [
            GRAPH.replace("copy.deepcopy", "lambda node: node"),
            GRAPH.replace("max(", "min("),
            GRAPH.replace("sum(item.price for item in items)", "Reference().total(items)"),
            FORGED + GRAPH.replace("max(items, key=lambda item: item.price)", "Forged()"),
        ],
    ),
    "a script with a loop, an error and a helper": (
        """
def near(a, b):
    assert abs(a - b) < 1e-9

for x in range(4):
    near(half(x), x / 2)
try:
    half("x")
    assert False
except TypeError:
    pass
""",
        "def half(x): return x / 2",
        ["def half(x): return 0 if isinstance(x, str) else x / 2", "def half(x): return x // 2"],
    ),
    "a script that imports all names of a module": (
        "from math import *\nassert half(8) == gcd(4, 12)\nassert half(9) == sqrt(20.25)\n",
        "def half(x): return x / 2",
        ["def half(x): return 4"],
    ),
    "an instance whose attributes alone are compared": (
        "a = Half(8)\nb = Half(16)\nassert 2 * a.value == b.value\nassert a.value == 4\n",
        "class Half:\n    def __init__(self, x): self.value = x / 2",
        ["class Half:\n    def __init__(self, x): self.value = 4"],
    ),
    "an instance that is called": (
        "half = Scale(0.5)\nassert half(8) == 4\nassert half(2) == 1\n",
        "class Scale:\n    def __init__(self, by): self.by = by\n    def __call__(self, x): return self.by * x",
        ["class Scale:\n    def __init__(self, by): pass\n    def __call__(self, x): return 4"],
    ),
    "a script with a main block": (
        "def run_tests():\n    assert half(8) == 4\n\nif __name__ == '__main__':\n"
        "    assert half(3) == 1.5\n    run_tests()\n",
        "def half(x): return x / 2",
        ["def half(x): return 4", "def half(x): return x // 2"],
    ),
    "a script whose statements need each other": (
        "stack = Stack()\nstack.push(4)\nassert stack.top() == 4\n"
        "for x in [1, 2]: stack.push(x)\nassert stack.top() == 2\n",
        "class Stack:\n    def push(self, x): self.x = x\n    def top(self): return self.x",
        ["class Stack:\n    def push(self, x): pass\n    def top(self): return 4"],
    ),
    "tests that call nothing beside one that does": (
        "from solution import half\n\ndef test_exists():\n    assert callable(half)\n\ndef test_half():\n"
        "    assert half(8) == 4\n\ndef test_later():\n    pass\n",
        "def half(x): return x / 2",
        ["def half(x): return x"],
    ),
    "a skipped test beside another": (
        "import unittest\nfrom solution import half\nclass TestHalf(unittest.TestCase):\n"
        "    @unittest.skip('later')\n    def test_a(self): self.assertEqual(half(8), 5)\n"
        "    def test_b(self): self.assertEqual(half(8), 4)\n",
        "def half(x): return x / 2",
        ["def half(x): return 5"],
    ),
    "a test function that the suite calls": (
        "from solution import half\n\ndef test_check(candidate):\n    assert candidate(8) == 4\n\ntest_check(half)\n",
        "def half(x): return x / 2",
        ["def half(x): return x"],
    ),
    "the folder of the suite on the path": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\nfrom solution import half\n\n"
        "def test_half():\n    assert half(8) == 4\n",
        "def half(x): return x / 2",
        ["def half(x): return x"],
    ),
    "a large argument in a test function": (
        "from solution import count\n\ndef test_count():\n    assert count(list(range(300_000))) == 300_000\n",
        "def count(items): return len(items)",
        ["def count(items): return 1"],
    ),
    "stand-ins of pytest": (
        "import pytest\nfrom solution import halves\n\ndef test_halves():\n"
        "    assert halves(0.6, 2) == pytest.approx([0.1 + 0.2, 1])\n"
        "    with pytest.raises(expected_exception=TypeError):\n        halves('x')\n",
        "def halves(*xs): return tuple(x / 2 for x in xs)",
        ["def halves(*xs): return xs", "def halves(*xs): return (0.3, 1)", "def halves(*xs): return (0.3, 1, 2)"],
    ),
    "a solution that prints and exits in its main block": (
        "from solution import f\n\ndef test_f():\n    for x in range(3): assert f(x) == x\n",
        "def f(x):\n    print('verdict ok')\n    return x\nif __name__ == '__main__':\n    raise SystemExit(1)",
        ["def f(x):\n    print('ok')\n    return 0"],
    ),
}


@pytest.mark.parametrize(("suite", "right", "wrong"), SUITES.values(), ids=SUITES)
def test_a_suite_pays_right_programs_alone(suite, right, wrong):
    assert statuses(suite, right, *wrong) == ["ok", *["wrong"] * len(wrong)]


GUARDED = """
from solution import f
import pytest

SECRET = 9218

def test_f():
    assert f(3) == SECRET
    assert f(4) in (SECRET + 1,)
    assert f(5).startswith("SECRET")
    assert abs(f(6) - SECRET) < 1e-9
    assert f(7) > 9000
    assert f(8) == pytest.approx(9218.5)
"""
HACKS = {
    "a forged object": (FORGED + "def f(x): return Forged()", "wrong"),
    "a class in place of the function": (
        FORGED.replace("class Forged:", "class f:\n    def __init__(self, x=0): pass"),
        "wrong",
    ),
    "a class of numbers in place of the function": (
        FORGED.replace("class Forged:", "class f(float):\n    def __new__(cls, x): return float.__new__(cls, 1)"),
        "wrong",
    ),
    "a class of texts in place of the function": (
        FORGED.replace("class Forged:", "class f(str):\n    startswith = lambda self, other: True"),
        "wrong",
    ),
    "a class of named tuples in place of the function": (
        FORGED.replace("class Forged:", "import typing\nclass Named(typing.NamedTuple):\n    x: int = 1", 1).replace(
            "    def __getattr__(self, name): return Forged()\n", ""
        )
        + "    startswith = lambda self, other: True\ndef f(x): return Named()",
        "wrong",
    ),
    "a class of members in place of the function": (
        "import enum\nclass E(str, enum.Enum):\n    A = 'a'\n    __eq__ = __lt__ = __gt__ = lambda self, other: True\n"
        "    __hash__ = str.__hash__\n    __contains__ = startswith = lambda self, other: True\n"
        "    __abs__ = lambda self: 0\n    __sub__ = __rsub__ = lambda self, other: 0\ndef f(x): return E.A",
        "wrong",
    ),
    "a number that equals everything": (
        "class N(int):\n    def __eq__(self, o): return True\ndef f(x): return N(1)",
        "wrong",
    ),
    "patched builtins": (
        "import builtins, sys\nbuiltins.abs = lambda x: 0\nbuiltins.isinstance = lambda *a: True\n"
        "sys.modules['pytest'] = sys\ndef f(x): return 1",
        "died",
    ),
    "exit": ("import os\nos._exit(0)", "died"),
    "exit in the call": ("import os\ndef f(x): os._exit(0)", "died"),
    "sys.exit": ("import sys\ndef f(x): sys.exit(0)", "wrong"),
    "words of the suite on the channel": (
        "import os\ndef f(x):\n    for _ in range(3): os.write(3, b'ok\\nverdict ok\\n')\n    return 1",
        "wrong",
    ),
    "words of the suite before the first question": (
        "import os\nos.write(3, b'ok\\nok\\nok\\n')\ndef f(x): return 1",
        "wrong",
    ),
    "an outcome of the runner": (
        'import os\ndef f(x):\n    os.write(3, b\'{"end": "ok", "data": ""}\\n\' * 4)\n    os._exit(0)',
        "wrong",
    ),
    "a search for the expected value": (
        "import gc, sys, inspect\ndef f(x):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'SECRET' in o: return o['SECRET']\n"
        "    for frame in inspect.stack():\n"
        "        if 'SECRET' in frame.frame.f_globals: return frame.frame.f_globals['SECRET']\n"
        "    for path in ('/tmp', '/proc/self/fd', '.'):\n        import os\n        for n in os.listdir(path):\n"
        "            if 'suite' in n: return 9218\n    return 0",
        "wrong",
    ),
    "an error that ends tests": ("class SkipTest(Exception): pass\ndef f(x): raise SkipTest('no')", "wrong"),
    "the suite's own error": (
        "class NotJudgedError(BaseException): pass\ndef f(x): raise NotJudgedError('no')",
        "wrong",
    ),
    "an error of the suite's runner": (
        "import unittest\nclass E(unittest.SkipTest): __module__, __name__ = 'unittest.case', 'SkipTest'\n"
        "def f(x): raise unittest.SkipTest('no') if x > 3 else E('no')",
        "wrong",
    ),
    "nothing": ("x = 3", "wrong"),
    "an endless loop": ("def f(x):\n    while True: pass", "timeout"),
    "a channel that is not read": ("import os, time\nos.close(4)\ndef f(x): return 1", "died"),
}


@pytest.mark.parametrize("line", range(6))
def test_a_forged_object_passes_no_comparison(line):
    lines = GUARDED.splitlines()
    start = lines.index("def test_f():") + 1
    suite = "\n".join([*lines[:start], lines[start + line]])
    hacks = [program for name, (program, _) in HACKS.items() if name.startswith(("a forged object", "a class"))]
    assert statuses(suite, *hacks) == ["wrong"] * 6
    assert statuses(suite, 'def f(x): return [0, 0, 0, 9218, 9219, "SECRET!", 9218.0, 9218, 9218.5][x]') == ["ok"]


@pytest.mark.parametrize(
    "near",
    [
        "np.allclose(Total(x), 2.5 * x)",
        "Total(x) == pytest.approx(2.5 * x)",
        "abs(Total(x) - 2.5 * x) < 1e-9",
        "round(2.5 * x - Total(x), 6) == 0",
        "not (Total(x) - 2.5 * x)",
        "Total(x) - 2.5 * x == 0",
        "-1e-9 < Total(x) - 2.5 * x < 1e-9",
        "-(Total(x) - 2.5 * x) == 0",
        "(Total(x) - 2.5 * x) * 3 == 0",
        "abs((Total(x) - 2.5 * x) * 3) < 1e-9",
    ],
)
def test_a_class_in_place_of_a_function_cannot_use_the_expected_value(near):
    suite = f"import numpy as np\nimport pytest\nfor x in [1, 2]:\n    assert {near}\n"
    operators = "    __eq__ = lambda self, other: True\n    __bool__ = lambda self: False\n"
    operators += (
        "    __abs__ = __float__ = __round__ = lambda self, *digits: 0\n    __sub__ = __rsub__ = lambda self, other: "
    )
    number = f"class Total(float):\n    def __new__(cls, x): return float.__new__(cls, 1)\n{operators}"
    thing = f"class Total:\n    def __init__(self, x): pass\n{operators}"
    member = (
        "Zero.ZERO\n    __neg__ = __mul__ = lambda self, *by: 0\nimport enum\nZero = enum.IntEnum('Zero', {'ZERO': 0})"
    )
    forged = [number + "0", number + "self", thing + "0", thing + "self", thing + "Total(0)", thing + member]
    assert statuses(suite, "def Total(x): return x * 5 / 2", *forged) == ["ok", *["wrong"] * 6]


@pytest.mark.parametrize(("program", "status"), HACKS.values(), ids=HACKS)
def test_a_hack_is_not_paid(program, status):
    assert statuses(GUARDED, program, seconds=1) == [status]


def test_tests_are_independent_and_pay_their_share():
    suite = (
        "from solution import f\n\ndef test_a():\n    assert f(1) == 1\n"
        "\ndef test_b():\n    for x in [2]: assert f(x) == 2\n"
    )
    program = "calls = []\ndef f(x):\n    calls.append(x)\n    if x == 1: raise SystemExit\n    return 1 + len(calls)"
    (graded,) = Code(partial=True, workers=1).grade([block(program)], [suite])
    assert graded == ("wrong", 0.5)


def test_a_suite_whose_tests_call_nothing_pays_nobody():
    suite = "from solution import f\n\ndef test_a():\n    assert True\n\ndef test_b():\n    pass\n"
    assert statuses(suite, "def f(x): return x") == ["no_gold"]


@pytest.mark.parametrize(
    "first",
    [
        "try:\n    f('x')\n    assert False\nexcept:\n    pass",
        "def fails(x):\n    try:\n        f(x)\n    except:\n        return True\nassert fails('x')",
        "def right(x, y):\n    try:\n        return f(x) == y\n    except:\n        return False\nassert right(4, 8)",
        "assert S() is not None",
        "s = S()\nprint(s)\nassert s",
    ],
)
def test_all_cases_of_a_script_count_even_if_nobody_listed_them(first):
    suite = f"{first}\nassert f(2) == 4\nfor x in [3]: assert f(x) == 6\n"
    program = "class S: pass\ndef f(x):\n    if x == 'x': raise TypeError\n    return {3: 6}.get(x, 2 * x)"
    wrong = [program.replace("{3: 6}", "{3: 7}"), program.replace("2 * x", "3 * x")]
    assert statuses(suite, program, *wrong) == ["ok", "wrong", "wrong"]


def test_a_script_with_a_random_number_of_cases_has_the_same_cases_each_time():
    suite = "import random\nfor x in range(random.randint(1, 99)):\n    assert f(x) == 2 * x\n"
    assert statuses(suite, "def f(x): return 2 * x", "def f(x): return x") == ["ok", "wrong"]


def test_cases_of_a_script_pay_their_share():
    suite = "for x in range(4):\n    assert f(x) == x\n"
    assert describe_tests(read_tests(suite)) == "call f, 4 cases"
    (graded,) = Code(partial=True, workers=1).grade([block("def f(x): return min(x, 2)")], [suite])
    assert graded == ("wrong", 0.75)


REFUSED = {
    "a missing module": ("import pandas\nfrom solution import f\ndef test_f(): assert f(1) == 1", "pandas"),
    "another name of the program": ("from main import f\ndef test_f(): assert f(1) == 1", "write `solution`"),
    "no assertion": ("from solution import f\ndef test_f(): f(1)", "no assertion"),
    "an assertion of a tuple": (
        "from solution import f\ndef test_f(): assert (f(1) == 2, 'message')",
        "a tuple, which is always true",
    ),
    "no call": ("for x in [1]: assert x == 1", "never calls the solution"),
    "a class that extends one of the program": (
        "from solution import Shape\nclass Square(Shape):\n    def area(self): return 4\n"
        "def test_f(): assert Square().text() == '4'",
        "a class of the suite extends one of the solution",
    ),
    "an undefined name": ("for x in [1]: assert f(y) == x", "y is not defined"),
    "a fixture": ("from solution import f\ndef test_f(tmp_path): assert f(1) == 1", "tmp_path"),
    "a coroutine": (
        "import asyncio\nfrom solution import f\ndef test_f(): assert asyncio.run(f(1)) == 1",
        "it imports asyncio",
    ),
    "a coroutine of a test case": (
        "import unittest\nfrom solution import f\ndef test_type(): assert f\n"
        "class Cases(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test_f(self): self.assertEqual(await f(1), 1)",
        "test_f is asynchronous",
    ),
    "a fixture of a fixture": (
        "import pytest\nfrom solution import f\n@pytest.fixture(params=[1, 2])\ndef x(request): return request.param\n"
        "def test_f(x): assert f(x) == x",
        "the fixture request",
    ),
    "a patch": (
        "from unittest.mock import patch\nfrom solution import f\n@patch('random.random')\ndef test_f(r): assert f(1)",
        "it imports unittest.mock.patch",
    ),
    "captured output": (
        "from io import StringIO\nimport sys\nfrom solution import f\ndef test_f():\n    sys.stdout = StringIO()\n"
        "    f(1)\n    assert sys.stdout.getvalue() == '1'",
        "it imports io.StringIO",
    ),
    "a file": (
        "import tempfile\nfrom solution import f\ndef test_f(): assert f(tempfile.mkstemp()[1]) == ''",
        "it imports tempfile",
    ),
    "a file that the suite writes": (
        "from solution import f\ndef test_f():\n    with open('/tmp/x', 'w') as file: file.write('1')\n"
        "    assert f('/tmp/x') == '1'",
        "it uses open, but the solution runs in another sandbox",
    ),
    "a variable of the environment": (
        "import os\nfrom solution import f\ndef test_f():\n    os.environ['X'] = '1'\n    assert f('X') == '1'",
        "it uses os.environ",
    ),
    "a check without a function": (
        "def check(candidate):\n    for x in [1]: assert candidate(x) == 1",
        "nothing calls its `check`; give entry_point",
    ),
    "a test that is skipped": (
        "import pytest\nfrom solution import f\n@pytest.mark.skipif(True, reason='slow')\n"
        "def test_f(): assert f(1) == 1",
        "which skips a test: slow",
    ),
    "a part of pytest": (
        "import pytest\nfrom solution import f\n@pytest.hookimpl\ndef test_f(): assert f(1) == 1",
        "hookimpl",
    ),
    "a file of the host": (
        "from pathlib import Path\nfor x in Path('/etc/hostname').read_text(): assert f(x) == x",
        "FileNotFoundError",
    ),
    "an end": ("import os\nos._exit(0)\nfor x in [1]: assert f(x) == x", "without an answer"),
    "no Python": ("from solution import f\ndef test_f(: assert f(1) == 1", "not Python"),
}


@pytest.mark.parametrize(("suite", "word"), REFUSED.values(), ids=REFUSED)
def test_a_suite_that_cannot_run_is_refused(suite, word, caplog):
    with pytest.raises(ValueError) as error:
        read_tests(suite)
    assert word in str(error.value) and "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert statuses(suite, "def f(x): return x", "def f(x): return 0") == ["no_gold", "no_gold"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "suite",
    [
        "from solution import *\n\ndef test_f():\n    assert double(4) == 8\n",
        "import solution as s\n\ndef test_f():\n    assert s.double(4) == 8\n",
        "def test_f():\n    for x in range(3):\n        assert double(x) == 2 * x\n",
    ],
)
def test_a_suite_that_does_not_import_its_names_finds_the_block_that_defines_them(suite):
    answer = f"{block('def double(x): return 2 * x')}\nTry it:\n{block('print(double(4))')}"
    ((status, _),) = Code(workers=1).grade([answer], [suite])
    assert status == "ok"


@pytest.mark.parametrize(
    "argument",
    ["lambda x: x + OFFSET", "lambda x: calls.append(x)", "{1: [lambda: calls]}", "Own()", "count(1)", "checked"],
)
def test_a_suite_that_passes_what_needs_the_suite_is_not_judged(argument):
    suite = (
        "from itertools import count\nfrom solution import f\nOFFSET = 1\n"
        "class Own:\n    def f(self): return calls\n\ndef checked(x):\n    assert x == 9218\n\ndef test_f():\n"
        f"    calls = []\n    assert f({argument}) == 1\n"
    )
    assert statuses(suite, "def f(x): return 1") == ["no_gold"]


@pytest.mark.parametrize(
    "body",
    [
        "rows = [(1, 9218)]",
        "def __init__(self): self.want = 9218",
        "def __call__(self, x): return x + x",
        "a: str = 'x'",
    ],
)
def test_a_class_that_may_hold_an_expected_value_stays_with_the_suite(body):
    suite = f"from solution import f\nclass Own:\n    {body}\n\ndef test_f():\n    assert f(Own()) == 9218\n"
    assert statuses(suite, "def f(own): return 9218") == ["no_gold"]


@pytest.mark.parametrize(
    "suite",
    [
        "def check(candidate):\n    assert same_list(candidate(head = list_node([1, 2])), list_node([2, 1]))\n",
        "def check(candidate):\n    assert candidate(1) == 4\n    assert list_node([2, 1]) == candidate(2)\n",
    ],
)
def test_helpers_that_a_suite_of_a_method_does_not_define_are_named(suite):
    with pytest.raises(ValueError, match="the tests use list_node, .* at the beginning of the tests"):
        read_tests(suite, "Solution().turn")
    helper = "from math import *\ndef list_node(items): return [floor(item) for item in items]\n"
    assert describe_tests(read_tests(helper + suite.replace("same_list", "any"), "Solution().turn"))
    assert describe_tests(read_tests("def check(candidate):\n    assert candidate(double(2)) == 1\n", "halve"))


def test_e2b_runs_no_scripts():
    with pytest.raises(ValueError, match="e2b"):
        read_tests("for x in range(3): assert f(x) == x", None, Box("e2b"))
