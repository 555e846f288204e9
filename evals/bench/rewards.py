"""Completions graded per second by `math` and `code`, with hostile completions, and with both rewards at once.

The process and its workers are bound to one core unless the name of a measurement says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
from typing import Any

from gbpo.run.rewards_package import rewards_module

from .measuring import BenchResult, Measurement, bench_result, one_core, seconds

_WORDS = "We add the two numbers and carry the one, which gives the next digit of the sum. "
_TEXT = (_WORDS * 40)[:3000]  # reasoning before the answer
_TOWER = r"\boxed{9^{9^{9^9}}}"
_PROGRAM = "Here it is.\n```python\nn = int(input())\nprint(sum(i * i for i in range(n)))\n```\n"
_TESTS = {
    "type": "stdin",
    "cases": [{"input": f"{n}\n", "output": f"{sum(i * i for i in range(n))}\n"} for n in range(100, 110)],
}


def run(options: argparse.Namespace) -> BenchResult:
    """Measure the completions graded per second."""
    repeats = options.repeats
    batch, polynomials, programs = (16, 4, 2) if options.quick else (512, 64, 32)
    found = []

    def rate(name: str, count: int, taken: list[float]) -> None:
        found.append(Measurement(name, [count / value for value in taken], "completions/s"))

    cores = len(os.sched_getaffinity(0))
    with one_core():
        maths = rewards_module("answers.math_answer").Math(workers=1)
        code = rewards_module("programs.reward").Code(workers=1)
        maths.grade([r"\boxed{4.0}"], [4])  # starts the worker
        kinds = {
            "integer answers": [(rf"{_TEXT}\boxed{{{n}}}", str(n + n % 2)) for n in range(batch)],
            "fractions": [(rf"{_TEXT}\boxed{{\frac{{{n}}}{{7}}}}", rf"\frac{{{2 * n}}}{{14}}") for n in range(batch)],
            "polynomials": [(rf"{_TEXT}\boxed{{{n}x(x+1)}}", rf"{n}x^2+{n}x") for n in range(1, polynomials + 1)],
        }
        clean = [*kinds["integer answers"][: batch // 2], *kinds["fractions"][: batch // 2]]
        for name, pairs in {**kinds, "integers and fractions": clean}.items():
            taken = seconds(functools.partial(maths.grade, *zip(*pairs, strict=True)), repeats)
            rate(f"math, {name}", len(pairs), taken)
        hostile = [(_TOWER, "4") if place % 50 == 0 else pair for place, pair in enumerate(clean)]
        towers = sum(text == _TOWER for text, _ in hostile)
        taken = seconds(lambda: maths.grade(*zip(*hostile, strict=True)), repeats)
        found.append(Measurement(f"math, batch of {batch} with {towers} power towers", taken, "s"))

        def run_programs(grader: Any) -> None:
            grader.grade([_PROGRAM] * programs, [_TESTS] * programs)

        rate("code, ten tests each", programs, seconds(lambda: run_programs(code), repeats))
        maths.close()

    workers = rewards_module("shared.concurrency").default_workers()
    if workers > 1:
        many = rewards_module("programs.reward").Code(workers=workers)
        rate(f"code, {workers} workers on {cores} cores", programs, seconds(lambda: run_programs(many), repeats))

    texts, references = zip(*clean, strict=True)

    async def both() -> None:
        await asyncio.gather(maths(texts, solution=references), code([_PROGRAM] * programs, tests=[_TESTS] * programs))

    maths.grade([r"\boxed{4.0}"], [4])
    alone = seconds(lambda: maths.grade(texts, references), repeats)
    in_turn = [a + b for a, b in zip(alone, seconds(lambda: run_programs(code), repeats), strict=True)]
    at_once = seconds(lambda: asyncio.run(both()), repeats)
    found.append(Measurement(f"math and code of one batch in turn, {cores} cores", in_turn, "s"))
    found.append(Measurement(f"math and code of one batch at once, {cores} cores", at_once, "s"))
    maths.close()
    return bench_result(found)
