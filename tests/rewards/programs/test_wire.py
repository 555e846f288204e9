"""Plain data as JSON: decoded values are equal and of exact types, and hostile text is refused fast."""

import array
import collections
import copy
import datetime
import decimal
import enum
import fractions
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pace import cpu_limit
from rewards.programs.wire import MAX_DEPTH, MAX_ITEMS, PlainIterator, decode, encode

PRIME = 2**61 - 1  # its multiples have the hash 0
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**54), 2**54)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))  # including lone surrogates
    | st.binary()
)
HASHABLE = st.recursive(ATOMS, lambda items: st.lists(items).map(tuple) | st.frozensets(items), max_leaves=5)
VALUES = st.recursive(
    ATOMS,
    lambda items: (
        st.lists(items)
        | st.lists(items).map(tuple)
        | st.sets(HASHABLE)
        | st.frozensets(HASHABLE)
        | st.dictionaries(HASHABLE, items)
    ),
)


def type_name(value):
    return type(value).__name__


def canonical(value):
    """A form that is equal for values of the same types and bits. The order of sets does not matter."""
    kind = type(value)
    if kind is dict:
        return kind, [(canonical(key), canonical(item)) for key, item in value.items()]
    if kind in (list, tuple, set, frozenset):
        items = list(map(canonical, value))
        return kind, items if kind in (list, tuple) else sorted(items, key=repr)
    return kind, hex(value) if kind is int else repr(value)


@given(VALUES)
@settings(deadline=None)
def test_decoding_gives_the_encoded_value(value):
    text = encode(value)
    assert text.isascii() and "\n" not in text
    assert canonical(decode(text)) == canonical(value)
    assert canonical(decode(text.encode())) == canonical(value)


@pytest.mark.parametrize(
    "value",
    [
        2**53 - 1,
        -(2**53),
        10**100_000,  # Python refuses to write it in decimal
        -(10**5000),
        math.nan,
        -0.0,
        5e-324,
        complex(-0.0, math.inf),
        {1: {2.0: [(), set(), {}, frozenset()]}},
        {"float": "nan"},  # looks like a tag, but is data
        "\ud800\x00\U0010ffff",
    ],
    ids=type_name,
)
def test_extreme_values_of_every_type(value):
    assert canonical(decode(encode(value))) == canonical(value)


class Int(int):
    __add__ = __index__ = __hash__ = __repr__ = __eq__ = lambda *args: 7
    __class__ = property(lambda self: str)


class Text(str):
    __str__ = __getitem__ = __repr__ = __format__ = lambda *args: "forged"


class Float(float):
    hex = __repr__ = __float__ = lambda *args: "0x1p+0"


class Complex(complex):
    __add__ = __complex__ = lambda *args: 1j
    real = imag = property(lambda self: 7.0)


class Bytes(bytes):
    hex = __bytes__ = lambda *args: "00"


class Items(list):
    __iter__ = __reversed__ = lambda self: iter([7])
    __len__ = __bool__ = lambda self: 0


class Pairs(dict):
    items = keys = values = __iter__ = lambda *args: iter([(7, 7)])


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (Int(4), 4),
        (Int(2**70), 2**70),
        (Text("true"), "true"),
        (Float(0.5), 0.5),
        (Complex(1, 2), 1 + 2j),
        (Bytes(b"x"), b"x"),
        (Items([1, Items([2])]), [1, [2]]),
        (Pairs({1: Int(2)}), {1: 2}),
        (Colour.RED, 3),
        (collections.namedtuple("Point", "x y")(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (type("Set", (set,), {"__iter__": lambda self: iter("forged")})({1}), {1}),
        (type("Frozen", (frozenset,), {"__hash__": lambda self: 0})({1}), frozenset({1})),
    ],
    ids=type_name,
)
def test_a_subclass_is_encoded_as_its_builtin_without_calling_its_methods(value, content):
    assert canonical(decode(encode(value))) == canonical(content)


ITERABLES = [range(3), range(9, 1, -2), collections.deque([1, (2,)]), {1: 2, (3,): 4}.keys(), {1: 2, (3,): [4]}.items()]


@pytest.mark.parametrize("value", ITERABLES, ids=type_name)
def test_some_iterables_keep_their_types(value):
    for around in (value, [value], (value,), {1: value}, [{"x": ([value],)}]):
        found = decode(encode(around, iterables=True))
        assert found == around and type(found) is type(around)
    assert type(decode(encode(value, iterables=True))) is type(value)


def test_the_values_of_a_dict_keep_their_type():
    values = decode(encode({1: [2], 3: 2}.values(), iterables=True))
    assert type(values) is type({}.values()) and list(values) == [[2], 2]


class Linked:
    def __init__(self, *items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Sized(Linked):
    def __len__(self):
        return len(self.items)


def test_other_iterables_keep_their_items():
    for value in (iter([1, [2]]), (x for x in (1, [2])), map(copy.copy, [1, [2]]), Linked(1, [2])):
        found = decode(encode(value, iterables=True))
        assert type(found) is PlainIterator and found != [1, [2]] and found == found
        assert list(found) == [1, [2]] and list(found) == []
    for value, items in ((Sized(1, [2]), [1, [2]]), (bytearray(b"ab"), [97, 98]), (array.array("b", b"a"), [97])):
        assert decode(encode(value, iterables=True)) == collections.deque(items)


def test_an_iterable_with_too_many_items_is_refused():
    assert decode(encode(iter([None] * MAX_ITEMS), iterables=True)).items == [None] * MAX_ITEMS
    for value in (itertools.repeat(None), [itertools.count()], itertools.repeat(None, MAX_ITEMS + 1)):
        with cpu_limit(20), pytest.raises(ValueError, match=f"more than {MAX_ITEMS} items"):
            encode(value, iterables=True)


@pytest.mark.parametrize(
    "value", [object(), object, Ellipsis, len, datetime.date(2000, 1, 1), json, [object()]], ids=type_name
)
def test_what_cannot_be_iterated_over_is_refused(value):
    with pytest.raises(TypeError):
        encode(value, iterables=True)


@pytest.mark.parametrize("value", [fractions.Fraction(-2, 3), fractions.Fraction(4), decimal.Decimal("-1.50")], ids=str)
def test_fractions_and_decimals_keep_their_types_in_results(value):
    for around in (value, [value], {value: (value,)}):
        found = decode(encode(around, iterables=True))
        assert found == around and repr(found) == repr(around)


class Liar:
    __class__ = property(lambda self: int)
    __index__ = __int__ = lambda self: 7


class MetaLiar(type):
    __mro__ = property(lambda cls: (int, object))


REFUSED = [
    *(object(), object, Ellipsis, NotImplemented, len, range(3), slice(3), bytearray(b"x"), memoryview(b"x"), json),
    *(decimal.Decimal(1), fractions.Fraction(1, 2), datetime.date(2000, 1, 1), collections.deque([1])),
    *(array.array("b", b"x"), iter([1]), {}.keys(), (x for x in ()), Liar(), MetaLiar("Forged", (), {})()),
]


@pytest.mark.parametrize("value", REFUSED, ids=type_name)
def test_other_types_are_refused_at_any_depth(value):
    for around in (value, [value], (value,), {1: value}, [{"x": ([value],)}]):
        with pytest.raises(TypeError):
            encode(around)


WRAPS = {
    "list": lambda item: [item],
    "tuple": lambda item: (item,),
    "frozenset": lambda item: frozenset({item}),
    "dict": lambda item: {1: item},
}


def nested(kind, depth):
    value = 1
    for _ in range(depth):
        value = WRAPS[kind](value)
    return value


@pytest.mark.parametrize("kind", WRAPS)
def test_values_nested_too_deeply_are_refused(kind):
    deepest = nested(kind, MAX_DEPTH - 1)
    assert decode(encode(deepest)) == deepest
    with pytest.raises(ValueError, match="deeper than 100"):
        encode(nested(kind, MAX_DEPTH))


def test_a_value_that_contains_itself_is_refused():
    knot = []
    knot.append({1: (knot,)})
    with pytest.raises(ValueError, match="deeper than 100"):
        encode(knot)


def tagged(kind, items):
    return json.dumps({kind: list(items)})


COLLIDING = [{"int": hex(n * PRIME)} for n in range(1, 100_000)]
HOSTILE = {
    "empty": "",
    "no JSON": "[1, 2",
    "two values": "1 2",
    "python": "__import__('os')",
    "no text": b"\xff\xfe\x00",
    "no UTF-8": b'"\xff"',
    "NUL": "\x00",
    "NaN": "NaN",
    "infinity": "[-Infinity]",
    "a decimal float": "0.5",
    "a float beyond floats": "1e999999",
    "no tag": "{}",
    "two tags": '{"int": "0x1", "float": "0x1p0"}',
    "unknown tag": '{"object": []}',
    "unknown tag without content": '{"__class__": null}',
    "number for text": '{"int": 1}',
    "text for a number": '{"int": "seven"}',
    "list for text": '{"float": ["0x1p0"]}',
    "no hexadecimal": '{"bytes": "xyz"}',
    "half a complex": '{"complex": ["0x1p0"]}',
    "a third of a complex": '{"complex": ["0x1p0", "0x1p0", "0x1p0"]}',
    "a float that overflows": '{"float": "0x1p999999999999"}',
    "a number as items": '{"tuple": 5}',
    "null as items": '{"set": null}',
    "no pairs": '{"dict": [[1]]}',
    "text as a range": '{"range": ["a"]}',
    "a range without a step": '{"range": [1, 2, 0]}',
    "list as key of a view": '{"dict_keys": [[1]]}',
    "a fraction without a denominator": '{"fraction": [1]}',
    "a fraction by zero": '{"fraction": [1, 0]}',
    "a fraction of texts": '{"fraction": ["1", "2"]}',
    "a large fraction": json.dumps({"fraction": [1, {"int": "0x" + "f" * 4_000_000}]}),
    "a decimal that is no number": '{"decimal": "NaN"}',
    "an infinite decimal": '{"decimal": "-Infinity"}',
    "a word as a decimal": '{"decimal": "one"}',
    "a number as a decimal": '{"decimal": 1}',
    "a large decimal": '{"decimal": "1e999999999"}',
    "a small decimal": '{"decimal": [0, [1], -999999999]}',
    "a long decimal": json.dumps({"decimal": "1" * 4_000_000}),
    "no pairs of a view": '{"dict_items": [1]}',
    "a number as an iterator": '{"iterator": 5}',
    "colliding keys of a view": tagged("dict_keys", COLLIDING),
    "colliding items of a view": tagged("dict_items", ({"tuple": [key, 1]} for key in COLLIDING)),
    "triples": '{"dict": [[1, 2, 3]]}',
    "list as key": '{"dict": [[[1], 2]]}',
    "list in a set": '{"set": [[1]]}',
    "dict in a tuple in a set": '{"set": [{"tuple": [{"dict": []}]}]}',
    "set in a frozenset": '{"frozenset": [{"set": [1]}]}',
    "deep lists": "[" * 2_000_000,
    "deep lists, closed": "[" * 200_000 + "]" * 200_000,
    "deep lists below the parser's limit": "[" * 900 + "]" * 900,
    "deep tags": '{"tuple": [' * 100_000 + "]}" * 100_000,
    "a giant decimal number": "9" * 4_000_000,
    "many large decimal numbers": "[" + ",".join(["9" * 4301] * 900) + "]",
    "a giant number with a sign and rubbish": json.dumps({"int": "-0x" + "f" * 4_000_000 + "g"}),
    "a giant float": json.dumps({"float": "0x" + "1" * 4_000_000}),
    "colliding numbers in a set": tagged("set", COLLIDING),
    "colliding numbers in a frozenset": tagged("frozenset", COLLIDING),
    "colliding keys": tagged("dict", ([key, 1] for key in COLLIDING)),
    "colliding tuples": tagged("set", ({"tuple": [number]} for number in COLLIDING)),
    "colliding keys that are tuples": tagged("dict", ([{"tuple": [1, number]}, 1] for number in COLLIDING)),
    "colliding floats": tagged("set", ({"float": (2.0 ** (61 * n)).hex()} for n in range(-17, 17) for _ in range(9))),
    "colliding after other values": tagged("set", [*range(100_000), *COLLIDING[:101]]),
    "one value many times": tagged("set", [1] * 100_000),
    "colliding below a list": json.dumps([[{"set": COLLIDING}]]),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_fast(text):
    with cpu_limit(20), pytest.raises(ValueError):
        decode(text)


GROUPS = [{"int": hex(n + m * PRIME)} for n in range(1_000) for m in range(100)]
LARGE = {
    "groups of as many collisions as are allowed": tagged("set", GROUPS),
    "the same as keys": tagged("dict", ([{"tuple": [number]}, 0] for number in GROUPS)),
    "long tuples that differ at their ends": tagged(
        "set", ({"tuple": [0] * 10_000 + [number]} for number in COLLIDING[:100])
    ),
    "a giant hexadecimal number": json.dumps({"int": "0x" + "f" * 4_000_000}),
    "large decimal numbers": "[" + ",".join(["9" * 4300] * 900) + "]",
    "a million lists": "[" + ",".join(["[]"] * 1_000_000) + "]",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_large_text_is_decoded_fast(text):
    with cpu_limit(40):
        decode(text)


def test_honest_data_stay_within_the_limit_of_hash_collisions():
    """-1 and -2 have the same hash, as do multiples of 2**61 - 1."""
    for value in ({-1, -2}, {n * PRIME for n in range(100)}, {(n, -m) for n in range(200) for m in (1, 2)}):
        assert decode(encode(value)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("0x1p3"),
    lambda items: (
        st.lists(items, max_size=3)
        | st.dictionaries(
            st.sampled_from(["int", "float", "complex", "bytes", "tuple", "set", "frozenset", "dict", "list", "x"]),
            items | st.lists(st.lists(items, max_size=2), max_size=2),
            max_size=2,
        )
    ),
    max_leaves=8,
)


@given(JSON)
@settings(deadline=None)
def test_any_json_is_decoded_or_refused(tree):
    try:
        value = decode(json.dumps(tree))
    except ValueError:
        return
    assert canonical(decode(encode(value))) == canonical(value)


@pytest.mark.slow
@given(VALUES, st.data())
@settings(deadline=None)
def test_damaged_text_is_decoded_or_refused(value, data):
    text = bytearray(encode(value).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        value = decode(bytes(text))
    except ValueError:
        return
    assert canonical(decode(encode(value))) == canonical(value)
