"""Differences of the algorithms to the baseline, corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..shared.estimates import Interval, iqm_difference, paired_difference, probability_of_improvement
from ..shared.holm import corrected_intervals, corrected_p_values
from ..shared.results import Cell, Results, label
from .run_numbers import area, final_entropy, logged, pass_at_samples, score
from .verdicts import verdict


@dataclass(frozen=True)
class PointDifference:
    """Difference of one algorithm to the baseline at one grid point, over the seeds that both finished.

    The intervals of each field, except `improvement`, are corrected by Holm's method for the number of algorithms and
    grid points, see `evals.shared.holm`.

    Args:
        setting: The grid point.
        algorithm: The algorithm. The baseline is the first of `Results.algorithms`.
        last: Difference of mean@k of the final models, paired by seed.
        p_value: P-value of `last`, corrected by Holm's method. None with one seed, or if the algorithms share all runs.
        best: Difference of mean@k of the best checkpoints, paired by seed. None if no seed has a best
            checkpoint of both.
        iqm: Difference of the interquartile means.
        area: Difference of the areas under the validation curves, paired by seed.
        pass_at_k: Difference of pass@k of the final models, with k the number of samples, paired by seed.
        entropy: Difference of the entropies of the last logs in nats per token, paired by seed.
        improvement: Probability that a run of the algorithm beats a run of the baseline. Ties count half.
        verdict: One sentence that says which is better.
    """

    setting: dict[str, Any]
    algorithm: str
    last: Interval
    p_value: float | None
    best: Interval | None
    iqm: Interval
    area: Interval | None
    pass_at_k: Interval | None
    entropy: Interval | None
    improvement: Interval
    verdict: str


@dataclass(frozen=True)
class GridDifference:
    """Difference of one algorithm to the baseline over a grid of several points.

    The intervals of each field are corrected by Holm's method for the number of algorithms.

    Args:
        algorithm: The algorithm.
        grid: Difference of mean@k of the final models, averaged over the grid and paired by seed. Only seeds that
            both algorithms finished at every grid point are used; None if there are no such seeds.
        setting: Best grid point of the algorithm: highest final validation reward, averaged over seeds.
        baseline_setting: Best grid point of the baseline.
        tuned: Difference of mean@k of the final models, each at its best grid point, paired by seed.
        verdicts: One sentence for each of the two differences.
    """

    algorithm: str
    grid: Interval | None
    setting: dict[str, Any]
    baseline_setting: dict[str, Any]
    tuned: Interval | None
    verdicts: list[str]


_Pairs = list[tuple[Cell, Cell]]  # runs of an algorithm and of the baseline with the same seed
_Scores = list[tuple[float, float]]  # of an algorithm and of the baseline, one pair per seed


def point_differences(
    results: Results, validation: str, reward_range: float, validation_range: float
) -> list[PointDifference]:
    """Differences to the baseline by grid point, then by algorithm. Those without a common seed are left out.

    Args:
        results: The comparison.
        validation: Metric of the validations.
        reward_range: Largest possible difference of two scores on the test questions.
        validation_range: Largest possible difference of two validation rewards.
    """
    baseline, *others = results.algorithms
    found = [
        (setting, algorithm, pairs)
        for setting in results.settings()
        for algorithm in others
        if (pairs := _pairs(results.done(algorithm, setting), results.done(baseline, setting)))
    ]
    # Cells that would take the same steps share a run. Each comparison of two different runs is in the family once.
    runs = [tuple((x.folder, y.folder) for x, y in pairs) for _, _, pairs in found]
    family = {of: pairs for of, (_, _, pairs) in zip(runs, found, strict=True) if any(x != y for x, y in of)}

    def column(difference: Callable[[_Pairs], Interval | None], most: float) -> list[Any]:
        corrected = dict(zip(family, _corrected([difference(pairs) for pairs in family.values()], most), strict=True))
        return [corrected[of] if of in corrected else difference(found[place][2]) for place, of in enumerate(runs)]

    finals = [_known(_final, pairs) for _, _, pairs in found]
    last = {of: _paired(_known(_final, pairs)) for of, pairs in family.items()}
    p_values = dict(zip(last, corrected_p_values([one.p_value if one else None for one in last.values()]), strict=True))
    columns = {
        "last": column(lambda pairs: _paired(_known(_final, pairs)), reward_range),
        "best": column(lambda pairs: _paired(_known(_best, pairs)), reward_range),
        "iqm": column(_iqm, reward_range),
        "area": column(lambda pairs: _paired(_known(lambda cell: area(cell, validation), pairs)), validation_range),
        "pass_at_k": column(lambda pairs: _paired(_known(pass_at_samples, pairs)), 1.0),
        "entropy": column(lambda pairs: _paired(_known(final_entropy, pairs)), math.inf),
    }
    return [
        PointDifference(
            setting=setting,
            algorithm=algorithm,
            p_value=p_values.get(runs[place]),
            improvement=probability_of_improvement(*zip(*finals[place], strict=True)),
            verdict=verdict(algorithm, baseline, finals[place], columns["last"][place]),
            **{name: column[place] for name, column in columns.items()},
        )
        for place, (setting, algorithm, _) in enumerate(found)
    ]


def grid_differences(results: Results, validation: str, reward_range: float) -> list[GridDifference]:
    """Differences to the baseline over the whole grid. Empty if the grid has a single point.

    Args:
        results: The comparison.
        validation: Metric of the validations.
        reward_range: Largest possible difference of two scores on the test questions.
    """
    baseline, *others = results.algorithms
    best = {algorithm: _best_point(results, algorithm, validation) for algorithm in results.algorithms}
    others = [algorithm for algorithm in others if best[algorithm] is not None]
    if len(results.settings()) < 2 or best[baseline] is None:
        return []
    grid = [_over_grid(results, algorithm, baseline) for algorithm in others]
    tuned = [_at_points(results, algorithm, best[algorithm], baseline, best[baseline]) for algorithm in others]
    over_grids, at_bests = (_corrected([_paired(pairs) for pairs in column], reward_range) for column in (grid, tuned))
    found = []
    for place, algorithm in enumerate(others):
        over_grid, at_best = over_grids[place], at_bests[place]
        verdicts = []
        if over_grid:
            sentence = _inside(verdict(algorithm, baseline, grid[place], over_grid))
            verdicts.append(f"Over the whole grid, {sentence}.")
        if at_best:
            where = f"{algorithm} at {label(best[algorithm])}, {baseline} at {label(best[baseline])}"
            sentence = _inside(verdict(algorithm, baseline, tuned[place], at_best))
            verdicts.append(f"Each at its best grid point by validation reward ({where}), {sentence}.")
        found.append(GridDifference(algorithm, over_grid, best[algorithm], best[baseline], at_best, verdicts))
    return found


def _inside(sentence: str) -> str:
    """The sentence with a small first letter, to continue another sentence."""
    return sentence[0].lower() + sentence[1:]


def _pairs(cells: Sequence[Cell], baseline: Sequence[Cell]) -> _Pairs:
    """Pairs of runs with the same seed whose final models were both evaluated."""
    by_seed = {cell.seed: cell for cell in baseline if cell.last}
    return [(cell, by_seed[cell.seed]) for cell in cells if cell.last and cell.seed in by_seed]


def _known(number: Callable[[Cell], float | None], pairs: _Pairs) -> _Scores:
    """A number of both runs of each pair, for the pairs in which both have it."""
    found = [(number(x), number(y)) for x, y in pairs]
    return [(ours, theirs) for ours, theirs in found if ours is not None and theirs is not None]


def _final(cell: Cell) -> float | None:
    return score(cell.last) if cell.last else None


def _best(cell: Cell) -> float | None:
    return score(cell.best) if cell.best else None


def _paired(scores: _Scores) -> Interval | None:
    return paired_difference(*zip(*scores, strict=True)) if scores else None


def _iqm(pairs: _Pairs) -> Interval | None:
    models = [(x.last.scores, y.last.scores) for x, y in pairs if x.last and y.last]
    return iqm_difference([ours for ours, _ in models], [theirs for _, theirs in models])


def _corrected(intervals: Sequence[Interval | None], most: float) -> list[Any]:
    """The intervals, corrected for their number and cut at ± `most`. None stays None."""
    corrected = iter(corrected_intervals([one for one in intervals if one]))
    return [one and next(corrected).within(-most, most) for one in intervals]


def _over_grid(results: Results, algorithm: str, baseline: str) -> _Scores:
    """Final scores of both algorithms, averaged over the grid, for each seed that both finished at every point."""
    ours, theirs = (
        [
            {cell.seed: score(cell.last) for cell in results.done(name, setting) if cell.last}
            for setting in results.settings()
        ]
        for name in (algorithm, baseline)
    )
    complete = [seed for seed in results.seeds if all(seed in at for at in [*ours, *theirs])]
    return [(fmean(at[seed] for at in ours), fmean(at[seed] for at in theirs)) for seed in complete]


def _at_points(results: Results, algorithm: str, setting: Any, baseline: str, baseline_setting: Any) -> _Scores:
    """Final scores of both algorithms, each at a grid point of its own, for each seed that both finished there."""
    return _known(_final, _pairs(results.done(algorithm, setting), results.done(baseline, baseline_setting)))


def _best_point(results: Results, algorithm: str, validation: str) -> Any:
    """Grid point with the highest final validation reward, averaged over seeds. Ties go to the first."""
    rewards = {}
    for place, setting in enumerate(results.settings()):
        curves = [logged(cell, validation) for cell in results.done(algorithm, setting)]
        if any(curves):
            rewards[place] = fmean(curve[-1] for curve in curves if curve)
    return results.settings()[max(rewards, key=lambda place: rewards[place])] if rewards else None
