"""`python -m evals.studies.test_time.table`: prints the tables of the study in Markdown, from its `results.json` files.

A difference is that of the share of right completions on the held-out sums between a loss and GRPO, paired by seed and
averaged over seeds. Its p-value is that of Student's paired t-test, corrected by Holm's method. The families:

1. the differences with the seeds 1 to 5,
2. those of the confirmation with fresh seeds,
3. those at equal optimiser steps,
4. those of the second confirmation, with GRPO at the setting that the screen found,
5. the difference with 240 generations,
6. with old completions and with a mismatch, the effects on GRPO,
7. there also the differences to GRPO,
8. the differences between the exact target and the losses that ran with more seeds after the screen of other losses.

The other measures read the validations of a run, which are the shares of right completions. The definitions, here and
in `evals.studies.tables`, were written before the numbers were computed. A run **reaches one half** at the first
validation of at least 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np

from ...shared.estimates import first_reach, paired_difference
from ...shared.results import Cell, Results
from .. import tables
from ..tables import rights, written

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
SCREEN = {
    "16 updates, 1e-5": "screen-16-rate-1e-5",
    "16 updates, 3e-5": "screen-16-rate-3e-5",
    "16 updates, 1e-4": "updates-16-rate-1e-4",
    "4 updates, 1e-4": "updates-4-rate-1e-4",
    "1 update, 3e-4": "updates-1",
    "4 updates, 1e-4, 240 generations": "screen-4-generations-240",
}
SECOND = "confirmation-16-rate-3e-5"
LONG = {"4 updates per generation, learning rate 1e-4, 240 generations": "confirmation-4-generations-240"}
AXES = {
    "Fresh completions, one dtype": "axes-none",
    "Completions of 4 generations ago": "axes-ahead-4",
    "Completions of 16 generations ago": "axes-ahead-16",
    "Sampler in bfloat16, trainer in float32": "axes-bfloat16",
}
OTHERS, AGAIN = "screen-others", {"The losses with more seeds": "others-again"}
EXACT = "gbpo:target_baseline=exact"
NAMES = {
    "grpo": "GRPO",
    "grpo:loss_type=cispo,epsilon_high=5": "CISPO",
    "grpo:loss_type=sapo": "SAPO",
    "grpo:loss_type=vespo": "VESPO",
    "grpo:importance_sampling_level=sequence": "GRPO, ratio per sequence",
    "gbpo": "GBPO as published",
    EXACT: "GBPO, exact",
    f"{EXACT},overshoot_slope=0.2": "GBPO, exact, κ 0.2",
    f"{EXACT},overshoot_slope=0": "GBPO, exact, κ 0",
    "gbpo:target_baseline=mean,target_temperature=0,bound_exponent=1,overshoot_slope=0": "DPPO",
    f"{EXACT},bound_exponent=0.5": "GBPO, exact, `bound_exponent` 0.5",
    f"{EXACT},bound_exponent=1": "GBPO, exact, bounds on the probability",
}
RIGHT = "eval_rewards/exact_match/mean"  # share of right completions in the validation
curve, row = partial(tables.curve, RIGHT), partial(tables.row, RIGHT)
below_start, collapses = partial(tables.below_start, RIGHT), partial(tables.collapses, RIGHT)
LABELS = "rewards/majority_vote/label_accuracy"  # share of majority labels that are right, in training


def explored() -> None:
    """Print one table for each comparison with the seeds 1 to 5."""
    compared(TABLES)


def compared(folders: Mapping[str, str], base: str = "grpo") -> None:
    """Print one table for each comparison by title. The differences between the losses and `base` are one family."""
    studies = {title: Results.load(STUDY / folder) for title, folder in folders.items()}
    differences = {
        (title, name): paired_difference(rights(results.done(name, {})), rights(results.done(base, {})))
        for title, results in studies.items()
        for name in results.algorithms
        if name != base
    }
    texts = written(differences)
    for title, results in studies.items():
        print(f"\n**{title}**\n")
        print(tables.HEAD.replace("− GRPO", f"− {NAMES[base]}"))
        print("|---|---|---|---|---|---|---|---|")
        for name in results.algorithms:
            mean, *rest = row(results.done(name, {}))
            print("| " + " | ".join([NAMES[name], mean, *texts.get((title, name), ["–", "–"]), *rest]) + " |")


def axes() -> None:
    """Print the runs with stale completions and with a mismatch, what either costs GRPO, and the labels."""
    compared(AXES)
    studies = {title: Results.load(STUDY / folder) for title, folder in AXES.items()}
    none, *others = AXES
    grpo = {title: rights(results.done("grpo", {})) for title, results in studies.items()}
    effects = {("grpo", title): paired_difference(grpo[title], grpo[none]) for title in others}
    print(f"\n| setting | GRPO − GRPO of “{none}” | p, Holm |")
    print("|---|---|---|")
    for (_, title), texts in written(effects).items():
        print("| " + " | ".join([title, *texts]) + " |")
    print("\n| loss |", *(f"{title} |" for title in studies))
    print("|---" * (1 + len(studies)) + "|")
    for name in studies[none].algorithms:
        right = [f"{fmean(map(label_accuracy, results.done(name, {}))):.2f}" for results in studies.values()]
        print("| " + " | ".join([NAMES[name], *right]) + " |")


def confirmation() -> dict[tuple[str, str], list[Cell]]:
    """The runs with the seeds 6 to 15, by loss and setting."""
    return {
        (name, title): results.done(name, {})
        for title, folder in CONFIRMATION.items()
        for results in [Results.load(STUDY / folder)]
        for name in results.algorithms
    }


def confirmed() -> None:
    """Print the runs with the seeds 6 to 15, and the differences between GBPO and GRPO as a family of their own.

    The interval over sums is that of the same difference for each sum of the test, averaged over seeds.
    """
    runs = confirmation()
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
    print("\n| loss | − GRPO with | difference | p, Holm | interval over sums |")
    print("|---|---|---|---|---|")
    for (name, title), texts in written(differences).items():
        sums = paired_difference(by_sum(runs[name, "16 updates, 1e-4"]), by_sum(runs["grpo", title]))
        print("| " + " | ".join([NAMES[name], title, *texts, f"[{sums.low:+.2f}, {sums.high:+.2f}]"]) + " |")


def at_equal_steps() -> None:
    """Print the validations of the confirmation after equally many optimiser steps and after equally many generations.

    Between two validations the share of right completions is interpolated.
    """
    runs = confirmation()
    steps, generations = (60, 240, 960), (12, 30, 60)
    print("\n| loss | setting |", *(f"{n} steps |" for n in steps), *(f"{n} generations |" for n in generations))
    print("|---|---|---|---|---|---|---|---|")
    for (name, title), cells in runs.items():
        places = [*steps, *(n * updates(title) for n in generations)]
        means = ["–" if n > 60 * updates(title) else f"{fmean(validation_at(n, cells)):.2f}" for n in places]
        print("| " + " | ".join([NAMES[name], title, *means]) + " |")
    differences = {
        (name, title): paired_difference(validation_at(n, cells), validation_at(n, runs["grpo", title]))
        for (name, _), cells in runs.items()
        if name != "grpo"
        for title, n in (("4 updates, 1e-4", 240), ("1 update, 3e-4", 60))
    }
    print("\n| loss with 16 updates, 1e-4 | − GRPO with | optimiser steps of both | difference | p, Holm |")
    print("|---|---|---|---|---|")
    for (name, title), texts in written(differences).items():
        print("| " + " | ".join([NAMES[name], title, str(60 * updates(title)), *texts]) + " |")


def safety() -> None:
    """Print how many runs of each loss end below their start or collapse, and how soon and how evenly runs learn."""
    studies = {title: Results.load(STUDY / folder) for title, folder in TABLES.items()}
    heads = [title.replace(" per generation, learning rate", ",") for title in studies]
    print("\n| loss |", *(f"{head} |" for head in heads))
    print("|---|---|---|---|---|---|---|")
    for name, shown in NAMES.items():
        found = [results.done(name, {}) for results in studies.values()]
        counts = [f"{below_start(cells)}, {collapses(cells)}" if cells else "–" for cells in found]
        if any(found):
            print("| " + " | ".join([shown, *counts]) + " |")
    print(
        "\n| loss | setting | below start | collapsed | reach one half | generations to it | thousand tokens to it "
        "| standard deviation | lowest seed |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, title), cells in confirmation().items():
        reached = [first_reach(*curve(cell), 0.5) for cell in cells]
        tokens = [tokens_at(step, cell) for step, cell in zip(reached, cells, strict=True)]
        texts = [
            f"{below_start(cells)} of {len(cells)}",
            f"{collapses(cells)} of {len(cells)}",
            f"{sum(step is not None for step in reached)} of {len(cells)}",
            _median([step and step / updates(title) for step in reached]),
            _median([count and count / 1000 for count in tokens]),
            f"{stdev(rights(cells)):.3f}",
            f"{min(rights(cells)):.2f}",
        ]
        print("| " + " | ".join([NAMES[name], title, *texts]) + " |")


def screened() -> None:
    """Print the settings of the screen beside those of the confirmation, all with the seeds 1 and 2."""
    print("\n| loss | setting | final validation | final mean@16 | final pass@16 | thousand tokens |")
    print("|---|---|---|---|---|---|")
    for name in ("grpo", "gbpo", EXACT):
        for title, folder in SCREEN.items():
            cells = [cell for cell in Results.load(STUDY / folder).done(name, {}) if cell.seed in (1, 2)]
            if cells:
                texts = [
                    f"{fmean(curve(cell)[1][-1] for cell in cells):.2f}",
                    f"{fmean(rights(cells)):.2f}",
                    row(cells)[1],
                    f"{fmean(cell.tokens for cell in cells if cell.tokens) / 1000:.0f}",
                ]
                print("| " + " | ".join([NAMES[name], title, *texts]) + " |")


def confirmed_again() -> None:
    """Print the runs with 16 updates, the rate 3e-5 and the seeds 6 to 15, and the differences to GRPO there."""
    results, setting = Results.load(STUDY / SECOND), "16 updates, 3e-5"
    lower = {(name, setting): cells for name in results.algorithms if (cells := results.done(name, {}))}
    print("\n| loss | setting | final mean@16 | final pass@16 | highest validation | area | entropy |")
    print("|---|---|---|---|---|---|---|")
    for (name, title), cells in lower.items():
        print("| " + " | ".join([NAMES[name], title, *row(cells)]) + " |")
    grpo = rights(lower["grpo", setting])
    differences = {
        key: paired_difference(rights(cells), grpo)
        for key, cells in (confirmation() | lower).items()
        if key[0] != "grpo"
    }
    print("\n| loss | setting | − GRPO with 16 updates, 3e-5 | p, Holm |")
    print("|---|---|---|---|")
    for (name, title), texts in written(differences).items():
        print("| " + " | ".join([NAMES[name], title, *texts]) + " |")


def other_losses() -> None:
    """Print the screen of other losses with the seeds 1 and 2, and those that also ran with the seeds 3 to 10."""
    results = Results.load(STUDY / OTHERS)
    print("\n| loss | seed 1 | seed 2 | final pass@16 | highest validation | area | entropy |")
    print("|---|---|---|---|---|---|---|")
    for name in results.algorithms:
        cells = results.done(name, {})
        print("| " + " | ".join([NAMES[name], *(f"{right:.2f}" for right in rights(cells)), *row(cells)[1:]]) + " |")
    compared(AGAIN, EXACT)


def label_accuracy(cell: Cell) -> float:
    """Share of the majority labels that are right, in the last five logs of a run."""
    return fmean([value for value in cell.series[LABELS] if value is not None][-5:])


def updates(title: str) -> int:
    """Updates per generation of a setting of the confirmation."""
    return int(title.split()[0])


def validation_at(step: float, cells: Sequence[Cell]) -> list[float]:
    """Share of right completions of each run at an optimiser step."""
    return [float(np.interp(step, *curve(cell))) for cell in cells]


def by_sum(cells: Sequence[Cell]) -> list[float]:
    """Share of right completions of each sum of the test, over all runs."""
    return [fmean(scores) for scores in zip(*(cell.last.scores for cell in cells if cell.last), strict=True)]


def tokens_at(step: float | None, cell: Cell) -> float | None:
    """Tokens of a run up to an optimiser step."""
    pairs = zip(cell.series["step"], cell.series["num_tokens"], strict=True)
    return None if step is None else next(count for at, count in pairs if at == step and count is not None)


def _median(values: Sequence[float | None]) -> str:
    """Median over runs, or a dash if half of them or more have no value."""
    found = median(float("inf") if value is None else value for value in values)
    return "–" if found == float("inf") else f"{found:.0f}"


def main() -> None:
    """Print all tables of the page."""
    explored()
    confirmed()
    at_equal_steps()
    safety()
    screened()
    confirmed_again()
    compared(LONG)
    axes()
    other_losses()


if __name__ == "__main__":
    main()
