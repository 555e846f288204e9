"""`python -m evals.studies.chain.table`: prints the tables of the study in Markdown, from its `results.json` files.

The differences of the final mean@16 between a loss and GRPO, at equal rates and at the own rate of each loss, are one
family for Holm's method. A difference that two tables show counts once. The own rate has the highest final validation,
averaged over the seeds.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

from ...shared.estimates import paired_difference
from ...shared.results import Cell, Results
from ..tables import HEAD, below_start, collapses, curve, rights, row, written

STUDY = Path(__file__).parent
NAMES = {
    "grpo": "GRPO",
    "gbpo:target_baseline=median,overshoot_slope=1": "GBPO as published",
    "gbpo:target_baseline=exact,overshoot_slope=1": "GBPO, exact",
}
VALIDATION = "eval_reward"  # share of right completions in the validation

Runs = dict[tuple[str, float], list[Cell]]


def runs(folder: str) -> Runs:
    """The runs of a comparison by loss and learning rate, in the order of the seeds."""
    results = Results.load(STUDY / folder)
    (rates,) = results.grid.values()
    return {(name, rate): results.done(name, {"learning_rate": rate}) for name in results.algorithms for rate in rates}


def final_validation(cells: list[Cell]) -> float:
    """The last validation, averaged over runs."""
    return fmean(curve(VALIDATION, cell)[1][-1] for cell in cells)


def own_rate(found: Runs, name: str) -> float:
    """The learning rate with the highest final validation of a loss, averaged over the seeds."""
    finals = {rate: final_validation(cells) for (loss, rate), cells in found.items() if loss == name}
    return max(finals, key=finals.__getitem__)


def compared() -> None:
    """Print one table for each rate, and the losses at their own rates."""
    found = runs("updates-4")
    own = {name: own_rate(found, name) for name in NAMES}
    tables = {f"Learning rate {_text(rate)}": dict.fromkeys(NAMES, rate) for _, rate in found}
    tables["Each loss at the rate with its highest validation"] = own
    pairs = {(name, rates[name], rates["grpo"]) for rates in tables.values() for name in NAMES if name != "grpo"}
    texts = written(
        {
            (name, rate, other): paired_difference(rights(found[name, rate]), rights(found["grpo", other]))
            for name, rate, other in sorted(pairs)
        }
    )
    for title, rates in tables.items():
        print(f"\n**{title}**\n")
        print(HEAD)
        print("|---|---|---|---|---|---|---|---|")
        for name, shown in NAMES.items():
            mean, *rest = row(VALIDATION, found[name, rates[name]])
            shown = f"{shown}, {_text(own[name])}" if rates is own else shown
            difference = texts.get((name, rates[name], rates["grpo"]), ["–", "–"])
            print("| " + " | ".join([shown, mean, *difference, *rest]) + " |")


def safety() -> None:
    """Print what more updates cost GRPO, and how many runs of each loss end below their start or collapse."""
    found, once = runs("updates-4"), runs("updates-1")
    print("\n| learning rate | GRPO, 1 update | GRPO, 4 updates | difference | seeds that end lower with 4 |")
    print("|---|---|---|---|---|")
    for _, rate in once:
        one, four = rights(once["grpo", rate]), rights(found["grpo", rate])
        both = paired_difference(four, one)
        lower = sum(after < before for after, before in zip(four, one, strict=True))
        texts = [f"{fmean(one):.2f}", f"{fmean(four):.2f}", f"{both.estimate:+.2f} [{both.low:+.2f}, {both.high:+.2f}]"]
        print("| " + " | ".join([_text(rate), *texts, f"{lower} of {len(one)}"]) + " |")
    print("\n| loss | learning rate | below start | collapsed | standard deviation | lowest seed |")
    print("|---|---|---|---|---|---|")
    for (name, rate), cells in found.items():
        counts = [f"{count(VALIDATION, cells)} of {len(cells)}" for count in (below_start, collapses)]
        spread = [f"{stdev(rights(cells)):.3f}", f"{min(rights(cells)):.2f}"]
        print("| " + " | ".join([NAMES[name], _text(rate), *counts, *spread]) + " |")


def screened() -> None:
    """Print the screen of a lower rate beside the other rates, all with the seeds 1 and 2."""
    found = runs("screen-rate-1e-5") | runs("updates-4")
    rates = sorted({rate for _, rate in found})
    print("\n| loss |", *(f"{_text(rate)} |" for rate in rates))
    print("|---" * (1 + len(rates)) + "|")
    for name, shown in NAMES.items():
        values = [final_validation([cell for cell in found[name, rate] if cell.seed in (1, 2)]) for rate in rates]
        print("| " + " | ".join([shown, *(f"{value:.3f}" for value in values)]) + " |")


def _text(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")


def main() -> None:
    """Print all tables of the page."""
    compared()
    safety()
    screened()


if __name__ == "__main__":
    main()
