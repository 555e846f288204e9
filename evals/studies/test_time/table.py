"""`python -m evals.studies.test_time.table`: prints the tables of the study in Markdown, from its `results.json` files.

A difference is that of the share of right completions on the held-out sums between a loss and GRPO, paired by seed and
averaged over seeds. Its p-value is that of Student's paired t-test, corrected by Holm's method. The differences with
the seeds 1 to 5 are one family. Those of the confirmation with fresh seeds are another, because they were chosen
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ...shared.estimates import Interval, area_under_curve, mean_interval, paired_difference, pass_at_k
from ...shared.holm import corrected_p_values
from ...shared.results import Cell, Results

STUDY = Path(__file__).parent
TABLES = {
    f"{updates} update{'s' * (updates > 1)} per generation, learning rate {rate}": f"updates-{updates}"
    + (f"-rate-{rate}" * (rate != "3e-4"))
    for rate in ("3e-4", "1e-4")
    for updates in (16, 4, 1)
}
CONFIRMATION = {
    "16 updates, 1e-4": "confirmation-16-rate-1e-4",
    "4 updates, 1e-4": "confirmation-4-rate-1e-4",
    "1 update, 3e-4": "confirmation-1",
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
    mean = mean_interval(rights(cells)).within(0, 1)
    assert mean.low is not None and mean.high is not None
    curves = [curve(cell) for cell in cells]
    ends = [next(value for value in reversed(cell.series["entropy"]) if value is not None) for cell in cells]
    return [
        f"{mean.estimate:.2f} [{mean.low:.2f}, {mean.high:.2f}]",
        f"{fmean(pass_at_k(16, cell.last.correct, 16) for cell in cells if cell.last):.2f}",
        f"{fmean(max(values) for _, values in curves):.2f}",
        f"{fmean(area_under_curve(*one) for one in curves):.2f}",
        f"{fmean(ends):.2f}",
    ]


def explored() -> None:
    """Print one table for each comparison with the seeds 1 to 5."""
    studies = {title: Results.load(STUDY / folder) for title, folder in TABLES.items()}
    differences = {
        (title, name): paired_difference(rights(results.done(name, {})), rights(results.done("grpo", {})))
        for title, results in studies.items()
        for name in results.algorithms
        if name != "grpo"
    }
    written = _written(differences)
    for title, results in studies.items():
        print(f"\n**{title}**\n")
        print("| loss | final mean@16 | − GRPO | p, Holm | final pass@16 | highest validation | area | entropy |")
        print("|---|---|---|---|---|---|---|---|")
        for name in results.algorithms:
            mean, *rest = row(results.done(name, {}))
            print("| " + " | ".join([NAMES[name], mean, *written.get((title, name), ["–", "–"]), *rest]) + " |")


def confirmed() -> None:
    """Print the runs with the seeds 6 to 15, and the differences between GBPO and GRPO as a family of their own."""
    runs = {
        (name, title): results.done(name, {})
        for title, folder in CONFIRMATION.items()
        for results in [Results.load(STUDY / folder)]
        for name in results.algorithms
    }
    print("\n| loss | setting | final mean@16 | final pass@16 | highest validation | area | entropy |")
    print("|---|---|---|---|---|---|---|")
    for (name, title), cells in runs.items():
        print("| " + " | ".join([NAMES[name], title, *row(cells)]) + " |")
    differences = {
        (name, title): paired_difference(rights(cells), rights(runs["grpo", title]))
        for (name, _), cells in runs.items()
        if name != "grpo"
        for title in CONFIRMATION
    }
    print("\n| loss | − GRPO with | difference | p, Holm |")
    print("|---|---|---|---|")
    for (name, title), texts in _written(differences).items():
        print("| " + " | ".join([NAMES[name], title, *texts]) + " |")


def _written(differences: dict[tuple[str, str], Interval]) -> dict[tuple[str, str], list[str]]:
    """Each difference with its interval, and its p-value, corrected for all of them."""
    p_values = corrected_p_values([found.p_value for found in differences.values()])
    return {
        key: [
            f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]",
            "< 0.001" if p is not None and p < 0.0005 else f"{p:.3f}",
        ]
        for (key, found), p in zip(differences.items(), p_values, strict=True)
    }


if __name__ == "__main__":
    explored()
    confirmed()
