"""`python -m evals.studies.test_time.table`: prints the tables of the study in Markdown, from its `results.json` files.

A difference is that of the share of right completions on the held-out sums between a loss and GRPO, paired by seed and
averaged over seeds. Its p-value is that of Student's paired t-test. All differences of all tables are one family:
p-values are corrected by Holm's step-down method (Holm 1979), so the chance that any is below 0.05 by luck is 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import stats

from ...shared.estimates import area_under_curve, mean_interval, paired_difference, pass_at_k
from ...shared.results import Cell, Results

STUDY = Path(__file__).parent
TABLES = {
    f"{updates} update{'s' * (updates > 1)} per generation, learning rate {rate}": f"updates-{updates}"
    + (f"-rate-{rate}" * (rate != "3e-4"))
    for rate in ("3e-4", "1e-4")
    for updates in (16, 4, 1)
}
NAMES = {
    "grpo": "GRPO",
    "grpo:importance_sampling_level=sequence": "GRPO, ratio per sequence",
    "gbpo": "GBPO as published",
    "gbpo:target_baseline=exact": "GBPO, exact",
    "gbpo:target_baseline=exact,overshoot_slope=0.2": "GBPO, exact, κ 0.2",
    "gbpo:target_baseline=mean,target_temperature=0,bound_exponent=1,overshoot_slope=0": "DPPO",
    "gbpo:target_baseline=exact,bound_exponent=1": "GBPO, exact, bounds on the probability",
}
RIGHT = "eval_rewards/exact_match/mean"  # share of right completions in the validation


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (Holm 1979).

    The i-th smallest of m p-values is multiplied by m − i + 1. No corrected value is smaller than the one before it.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return corrected[np.argsort(order, kind="stable")].tolist()


def curve(cell: Cell) -> tuple[list[float], list[float]]:
    """Steps and shares of right completions of the validations of a run."""
    pairs = zip(cell.series["step"], cell.series[RIGHT], strict=True)
    found = [(step, value) for step, value in pairs if step is not None and value is not None]
    return [step for step, _ in found], [value for _, value in found]


def rights(cells: Sequence[Cell]) -> list[float]:
    """Final mean@16 of each run."""
    return [fmean(cell.last.scores) for cell in cells if cell.last]


def row(cells: Sequence[Cell]) -> list[str]:
    """Final mean@16, pass@16, highest validation, area under the validation, and entropy at the end of some runs."""
    mean = mean_interval(rights(cells))
    assert mean.low is not None and mean.high is not None
    curves = [curve(cell) for cell in cells]
    ends = [next(value for value in reversed(cell.series["entropy"]) if value is not None) for cell in cells]
    return [
        f"{mean.estimate:.2f} [{max(mean.low, 0):.2f}, {min(mean.high, 1):.2f}]",
        f"{fmean(pass_at_k(16, cell.last.correct, 16) for cell in cells if cell.last):.2f}",
        f"{fmean(max(values) for _, values in curves):.2f}",
        f"{fmean(area_under_curve(*one) for one in curves):.2f}",
        f"{fmean(ends):.2f}",
    ]


def main() -> None:
    """Print one table for each comparison of the study."""
    studies = {title: Results.load(STUDY / folder) for title, folder in TABLES.items() if (STUDY / folder).is_dir()}
    pairs = {
        (title, name): (rights(results.done(name, {})), rights(results.done("grpo", {})))
        for title, results in studies.items()
        for name in results.algorithms
        if name != "grpo"
    }
    corrected = dict(zip(pairs, holm([float(stats.ttest_rel(*pair).pvalue) for pair in pairs.values()]), strict=True))
    for title, results in studies.items():
        print(f"\n**{title}**\n")
        print("| loss | final mean@16 | − GRPO | p, Holm | final pass@16 | highest validation | area | entropy |")
        print("|---|---|---|---|---|---|---|---|")
        for name in results.algorithms:
            mean, *rest = row(results.done(name, {}))
            difference = ["–", "–"]
            if name != "grpo":
                found = paired_difference(*pairs[title, name])
                difference = [
                    f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]",
                    f"{corrected[title, name]:.3f}",
                ]
            print("| " + " | ".join([NAMES[name], mean, *difference, *rest]) + " |")


if __name__ == "__main__":
    main()
