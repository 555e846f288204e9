r"""Units of answers, so that `2 hours` equals `120 minutes` and not `2 minutes`, and `\$18.90` equals `1890 cents`.

Next to a number without a unit, or with a unit of another kind, a unit does not count: `rewards.answers.normalise`
removes it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from .normalise import undecorated
from .plain_numbers import to_latex

# names: value in base units. Names of several letters may have a final s.
_TABLE = """
    m meter metre: 1 m
    in inch inche: 0.0254 m
    ft foot feet: 0.3048 m
    yd yard: 0.9144 m
    mi mile: 1609.344 m
    g gram gramme: 0.001 kg
    tonne: 1000 kg
    lb pound: 0.45359237 kg
    oz ounce: 0.028349523125 kg
    s sec second: 1 s
    min minute: 60 s
    h hr hour: 3600 s
    day: 86400 s
    week wk: 604800 s
    month: 1 month
    year yr: 12 month
    l L liter litre: 0.001 m^3
    cc: 0.000001 m^3
    ha hectare: 10000 m^2
    acre: 4046.8564224 m^2
    mph: 0.44704 m s^-1
    N newton: 1 kg m s^-2
    J joule: 1 kg m^2 s^-2
    W watt: 1 kg m^2 s^-3
    Wh: 3600 kg m^2 s^-2
    Pa pascal: 1 kg m^-1 s^-2
    Hz hertz: 1 s^-1
    dollar USD: 1 dollar
    cent: 0.01 dollar
    rad radian: 1 rad
    degree deg: 1 degree
"""
_PREFIXES = {"n": "1e-9", "m": "1e-3", "c": "1e-2", "d": "1e-1", "k": "1e3", "M": "1e6", "G": "1e9"}
_LONG_PREFIXES = {"nano": "1e-9", "micro": "1e-6", "milli": "1e-3", "centi": "1e-2", "kilo": "1e3", "mega": "1e6"}
_WITH_PREFIX = "m g s l L N J W Wh Pa Hz".split(), "meter metre gram gramme second liter litre joule watt".split()


@dataclass(frozen=True)
class _Unit:
    """A product of powers of base units.

    Args:
        factor: Its value in base units.
        powers: The power of each base unit.
    """

    factor: Fraction
    powers: frozenset[tuple[str, int]]


def _read_table() -> dict[str, _Unit]:
    units = {}
    for line in _TABLE.strip().splitlines():
        names, _, value = line.partition(":")
        factor, *bases = value.split()
        pairs = (base.partition("^") for base in bases)
        powers = frozenset((base, int(power or 1)) for base, _, power in pairs)
        for name in names.split():
            units[name] = _Unit(Fraction(factor), powers)
    for prefixes, with_prefix in zip((_PREFIXES, _LONG_PREFIXES), _WITH_PREFIX, strict=True):
        for prefix, factor in prefixes.items():
            for name in with_prefix:
                units.setdefault(prefix + name, _Unit(Fraction(factor) * units[name].factor, units[name].powers))
    return units


_UNITS = _read_table()
_NAME = r"(?:[A-Za-z](?:_\{?\w+\}?)?|\\text\{[^{}=]*\}) ?= ?"
_NUMBER = (  # without letters: a fraction of letters is a unit
    r"-?(?:[\d\s.,+\-*/^{}()]|\\(?:sqrt|pi|times|cdot)(?![A-Za-z])|\\[dt]?frac(?! ?\{ ?\\text| ?\{? ?[A-Za-z]))+"
)
_QUANTITY = re.compile(
    rf"(?:{_NAME})?(?P<number>{_NUMBER})(?P<unit>(?:\\text|\\[dt]?frac|[A-Za-z]|\^ ?\{{? ?\\circ).*)"
)
_RADIANS = re.compile(rf"(?:{_NAME})?(?P<number>(?=.*\\pi){_NUMBER})")
_QUOTIENT = re.compile(r"\\[dt]?frac ?\{(.*)\} ?\{(.*)\}")
_DEGREE = re.compile(r"\^ ?\{? ?\\circ ?\}?$")
_POWER = re.compile(r"\^ ?\{? ?(-?\d) ?\}?")
_FACTOR = re.compile(
    r"(?P<before>square |sq\.? |cubic )?(?P<name>[A-Za-z]+)(?:\^(?P<power>-?\d)| (?P<after>squared|cubed))?"
)
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
_BETWEEN = re.compile(r" ?(?P<divided>/|\bper\b)? ?")
_MEASURE = r"(\d+(?:\.\d+)?) ?([A-Za-z]+)"
_MEASURES = re.compile(rf"{_MEASURE}(?:\.?,? (?:and )?{_MEASURE})+\.?")
_DOLLARS = re.compile(r"(?:\\text[a-z]*\{|\\math[a-z]*\{|\s)*(?:\\\$|\$(?!.*\$))\s*[\d.,{}\s]*\d[}\s.]*")
_CENTS = re.compile(r"(?:\\text\{\s*)?(?:¢|\\cent(?![a-z]))\s*\}?")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
_LIST = re.compile(r",|\\pm")


@dataclass(frozen=True)
class _Quantity:
    """A number and its unit.

    Args:
        number: LaTeX.
        unit: The unit.
    """

    number: str
    unit: _Unit

    def latex(self) -> str:
        """The number of base units. Degrees become radians."""
        factor = r"\frac{\pi}{180}" if self.unit == _UNITS["degree"] else to_latex(self.unit.factor)
        return rf"{factor}\cdot ({self.number})"


def with_common_unit(first: str, second: str) -> tuple[str, str]:
    r"""Two answers without their units, in base units if the units differ, if both have a unit of the same kind.

    >>> with_common_unit(r"2 \text{ hours}", "120 minutes"), with_common_unit("2 hours", "2 kg")
    (('3600\\cdot (2)', '60\\cdot (120)'), ('2 hours', '2 kg'))
    """
    if first == second or not (one := _quantity(first)) or not (other := _quantity(second)):
        return first, second
    if one.unit == other.unit:
        return (first, second) if one.unit == _UNITS["rad"] else (one.number, other.number)
    is_angle = {one.unit, other.unit} == {_UNITS["degree"], _UNITS["rad"]}
    return (one.latex(), other.latex()) if is_angle or one.unit.powers == other.unit.powers else (first, second)


def _quantity(text: str) -> _Quantity | None:
    if _DOLLARS.fullmatch(text):
        text = rf"{undecorated(text)}\text{{ dollars}}"
    text = _THOUSANDS.sub("", undecorated(_CENTS.sub(r"\\text{ cents}", text)))
    plain = re.sub(" +", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)).strip()
    if _MEASURES.fullmatch(plain):
        return _sum([(Fraction(number), _unit(name)) for number, name in re.findall(_MEASURE, plain)])
    if match := _QUANTITY.fullmatch(text):
        unit = _unit(match["unit"])
    elif match := _RADIANS.fullmatch(text):
        unit = _UNITS["rad"]
    else:
        return None
    return None if unit is None or _LIST.search(match["number"]) else _Quantity(match["number"].strip(), unit)


def _sum(measures: list[tuple[Fraction, _Unit | None]]) -> _Quantity | None:
    """The sum of measures of one kind, such as 1 hour 30 minutes."""
    total, kinds = Fraction(0), set()
    for number, unit in measures:
        if unit is None:
            return None
        total += number * unit.factor
        kinds.add(unit.powers)
    return _Quantity(to_latex(total), _Unit(Fraction(1), kinds.pop())) if len(kinds) == 1 else None


def _unit(latex: str) -> _Unit | None:
    """The product of units that LaTeX from `undecorated` names; None if it is no such product."""
    if _DEGREE.fullmatch(latex.strip()):
        return _UNITS["degree"]
    if match := _QUOTIENT.fullmatch(latex.strip()):
        above, below = map(_unit, match.groups())
        return None if above is None or below is None else _product([(above, 1), (below, -1)])
    plain = _POWER.sub(r"^\1", latex.replace(r"\cdot", " "))
    plain = re.sub(" +", " ", re.sub(r"\\text|[{}·*]", " ", plain)).replace(" ^", "^").strip(" .")
    factors, place = [], 0
    while place < len(plain):
        between = _BETWEEN.match(plain, place)
        match = between and _FACTOR.match(plain, between.end())
        unit = match and (_UNITS.get(match["name"]) or _UNITS.get(match["name"].removesuffix("s")))
        if not between or not match or not unit:
            return None
        power = _POWERS.get((match["before"] or match["after"] or "").strip(" ."), 1) * int(match["power"] or 1)
        factors.append((unit, -power if between["divided"] else power))
        place = match.end()
    return _product(factors)


def _product(factors: list[tuple[_Unit, int]]) -> _Unit:
    total = Fraction(1)
    powers: Counter[str] = Counter()
    for unit, power in factors:
        total *= unit.factor**power
        for base, exponent in unit.powers:
            powers[base] += exponent * power
    return _Unit(total, frozenset((base, exponent) for base, exponent in powers.items() if exponent))
