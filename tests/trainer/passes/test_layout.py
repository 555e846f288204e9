"""Which rows share a forward pass: every row once, within the budget, at the least cost."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from gbpo.trainer.passes.layout import Lengths, as_many, rounded, split


def some_rows(rng, number, layout, longest=200):
    prompt_of = np.array([rng.randrange(4) for _ in range(number)])
    prompts = np.array([rng.randint(1, longest // 2) for _ in range(4)])[prompt_of]
    completions = np.array([rng.randint(0, longest // 2) for _ in range(number)])
    return Lengths(prompts, completions, layout == "packed", prompt_of if layout == "shared" else None)


def tokens(rows, chosen):
    """The cost of a pass by its definition, in tokens."""
    lengths = (rows.prompts + rows.completions)[chosen]
    if rows.packed:
        return lengths.sum()
    alone = len(chosen) * lengths.max()
    if rows.prompt_of is None:
        return alone
    before = rows.prompts[chosen].max() - 1
    shared = len(set(rows.prompt_of[chosen])) * before
    shared += len(chosen) * (rows.completions[chosen].max() + 1 + before / 8)
    return shared if shared <= 7 / 8 * alone else alone


LAYOUTS = ["padded", "packed", "shared"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_is_in_one_pass_within_the_budget(layout):
    rng = random.Random(0)
    for _ in range(200):
        rows = some_rows(rng, rng.randint(1, 40), layout)
        budget, at_most = rng.randint(50, 1000), rng.randint(1, 12)
        passes = split(rows, budget, at_most)
        assert sorted(itertools.chain(*passes)) == list(range(len(rows.prompts)))
        assert all(len(chosen) == 1 or tokens(rows, chosen) <= budget for chosen in passes)
        if layout == "shared":
            continue
        lengths = (rows.prompts + rows.completions).tolist()
        longest = [max(lengths[row] for row in chosen) for chosen in passes]
        assert longest == sorted(longest, reverse=True)
        if len(passes) > at_most and layout == "padded":  # then only because of the budget: the fewest passes within it
            left, fewest = sorted(lengths), 0
            while left:  # as many as fit beside the longest
                left, fewest = left[: -max(1, budget // left[-1])], fewest + 1
            assert len(passes) == fewest


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_other_cut_is_cheaper(layout):
    """Compared with all cuts of the rows in each order. An extra pass costs 1/64 of the budget."""
    rng = random.Random(1)
    by_prompt = 0
    for _ in range(50):
        rows = some_rows(rng, 8, layout, longest=60)
        ways = {}
        for order in rows.orders():
            for cuts in itertools.chain(*(itertools.combinations(range(1, 8), n) for n in range(8))):
                passes = [order[a:b].tolist() for a, b in itertools.pairwise([0, *cuts, 8])]
                if all(tokens(rows, chosen) <= 128 or len(chosen) == 1 for chosen in passes):
                    ways[str(passes)] = sum(tokens(rows, chosen) for chosen in passes) + 2 * len(passes)
        passes = split(rows, budget=128, at_most=8)
        assert sum(tokens(rows, chosen) for chosen in passes) + 2 * len(passes) == pytest.approx(min(ways.values()))
        lengths = (rows.prompts + rows.completions)[list(itertools.chain(*passes))]
        by_prompt += bool((np.diff(lengths) > 0).any())
    assert (by_prompt > 5) == (layout == "shared")


def test_the_pass_with_the_most_rows_is_halved():
    assert as_many([[0, 1, 2], [3]], 3) == [[0, 1], [2], [3]]
    assert as_many([[0, 1]], 5) == [[0], [1]]
    assert as_many([], 2) == []
    assert as_many([[0], [1]], 1) == [[0], [1]]


def test_rounded_widths_are_few_and_add_little():
    widths = np.arange(1, 2**15)
    found = rounded(widths)
    assert (found >= widths).all() and (found <= widths * 17 / 16).all()
    for first in (64, 1024, 16384):
        assert len(set(found[first : 2 * first])) == 16


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_rounded_widths_stay_within_the_budget(layout):
    """The padding that rounding adds counts as tokens of the pass."""
    rng = random.Random(2)
    for _ in range(100):
        rows = replace(some_rows(rng, rng.randint(2, 40), layout, longest=900), few_shapes=True)
        budget = rng.randint(1000, 5000)
        for chosen in split(rows, budget, 8):
            lengths = (rows.prompts + rows.completions)[chosen]
            tokens_run = rounded(lengths.sum()) if rows.packed else len(chosen) * rounded(lengths.max())
            assert len(chosen) == 1 or tokens_run <= budget
