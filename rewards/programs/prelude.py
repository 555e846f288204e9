"""The prelude: names that a program may use without importing them, as on sites for programming exercises."""

from __future__ import annotations

import builtins
import functools
import re
from collections.abc import Set

from .sandbox.box import Box, BoxError

PRELUDE = """\
import bisect, collections, copy, datetime, decimal, fractions, functools, heapq, io, itertools, json, math, operator
import os, random, re, statistics, string, sys, time, typing
from typing import *
from bisect import *
from collections import *
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from random import randint
from string import *
"""

_IMPORT = re.compile(r"^(?:from[ \t]++\S++[ \t]++)?import[ \t]++([^#;\n]*+)", re.MULTILINE)
_NAME = re.compile(r"(?<![.\w])[^\W\d]\w*+")


@functools.cache
def prelude_names(prelude: str, box: Box) -> frozenset[str]:
    """The names that a prelude adds to a program. The prelude is run in the box, once per process.

    Raises:
        BoxError: The prelude fails.
    """
    (outcome,) = box.run("import builtins\nprint(*vars(builtins))", [{"stdin": ""}], prelude)
    if outcome.end != "ok":
        raise BoxError(f"it ends with {outcome.end}")
    return frozenset(outcome.data.decode().split()) - {*dir(builtins), "exit", "quit"}


def uses_prelude(program: str, names: Set[str]) -> bool:
    """Whether a program may use one of these names without importing it. Running a prelude for it takes time.

    >>> uses_prelude("from math import gcd\\nprint(gcd(4, 6))", {"gcd", "math"})
    False
    >>> uses_prelude("from math import gcd\\nprint(math.lcm(4, 6))", {"gcd", "math"})
    True
    """
    imported = {name.strip().partition(".")[0] for line in _IMPORT.findall(program) for name in line.split(",")}
    return not names.isdisjoint(set(_NAME.findall(_IMPORT.sub("", program))) - imported)
