"""The verdict at the top of a report: what a reader takes away who reads nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from gbpo.shared.pages.formatting import number

from ..shared.estimates import Interval, is_finite
from ..shared.results import label
from .analysis import Analysis
from .formatting import bounds, signed
from .verdicts import outcome

FEW_SEEDS = 2  # with so few seeds, a warning says that the comparison proves little
MOST_SENTENCES = 3


def answer(analysis: Analysis, mean: str) -> list[str]:
    """The verdict, or the reason why there is none.

    Up to `MOST_SENTENCES` algorithms get a sentence each. More are put into groups. Over a grid of several points, the
    difference that counts is that of the means over the grid.

    Args:
        analysis: The numbers of the report.
        mean: Name of the final reward, for example `"mean@8"`.
    """
    if not _finals(analysis):
        return ["No run finished, so there is nothing to compare."]
    if len({summary.algorithm for summary in analysis.summaries}) == 1:
        return ["Only one algorithm was run, so there is no comparison."]
    if not analysis.differences:
        return ["No two finished runs share a seed and a grid point, so no difference can be computed."]
    compared = _compared(analysis)
    if len(compared) > MOST_SENTENCES and all(one.main and one.main.ends for one in compared):
        return _groups(compared, analysis.baseline, mean)
    return [_sentence(one, analysis.baseline, mean) for one in compared]


def warning(analysis: Analysis) -> str | None:
    """A sentence for a comparison with too few seeds, or None."""
    most = max((difference.last.n for difference in analysis.differences), default=FEW_SEEDS + 1)
    if most > FEW_SEEDS:
        return None
    if most == 1:
        return (
            "With one seed there is no confidence interval: any difference may be due to chance. Run 5 seeds or more."
        )
    return (
        f"Only {most} seeds ran, which proves little. Two seeds rarely show a true difference, and they can agree by "
        "chance. Run 5 seeds or more."
    )


def details(analysis: Analysis, mean: str) -> list[str]:
    """Sentences that follow the verdict: the highest score, the single grid points, and the best grid points."""
    finals = _finals(analysis)
    if not finals:
        return []
    place, best = max(finals, key=lambda final: final[1].estimate)
    score = " ".join(filter(None, (number(best.estimate), bounds(best))))
    compared = [one for one in _compared(analysis) if len(one.points) > 1 and one.main]
    return [
        f"Highest final {mean}: {score}, {place}.",
        *(
            f"{one.algorithm} at the {len(one.points)} single grid points: {_counts(one.points)}."
            for one in compared
            if len(compared) <= MOST_SENTENCES  # the table shows more
        ),
        *(difference.verdicts[-1] for difference in analysis.overall if difference.tuned),
    ]


def console(analysis: Analysis, mean: str) -> list[str]:
    """The verdict and a table of the differences, as lines for the terminal."""
    lines = [*answer(analysis, mean), *filter(None, [warning(analysis)])]
    rows = [
        (label(one.setting), one.algorithm, signed(one.last.estimate), bounds(one.last, signed), _word(one.last))
        for one in analysis.differences
    ]
    if rows:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", f"Difference of the final {mean} to {analysis.baseline}:"]
        lines += ["  ".join(map(str.ljust, row, widths)).strip() for row in rows]
    return [*lines, ""]


def _word(difference: Interval) -> str:
    return outcome(difference) if difference.ends else "one seed"


class _Compared(NamedTuple):
    """An algorithm, the difference that counts (None if no seed finished everywhere), and those of the grid points."""

    algorithm: str
    main: Interval | None
    points: Sequence[Interval]
    where: str  # the grid point if there is a single one


def _compared(analysis: Analysis) -> list[_Compared]:
    points: dict[str, dict[str, Interval]] = {}
    for difference in analysis.differences:
        points.setdefault(difference.algorithm, {})[label(difference.setting)] = difference.last
    over_grid = {difference.algorithm: difference.grid for difference in analysis.overall}
    found = []
    for algorithm, by_point in points.items():
        differences = [*by_point.values()]
        if len(differences) > 1:
            found.append(_Compared(algorithm, over_grid.get(algorithm), differences, ""))
        else:
            found.append(_Compared(algorithm, differences[0], differences, *by_point))
    return found


def _finals(analysis: Analysis) -> list[tuple[str, Interval]]:
    """Place and score of all final models."""
    return [
        (" at ".join(filter(None, (summary.algorithm, label(summary.setting)))), summary.last)
        for summary in analysis.summaries
        if summary.last and is_finite(summary.last.estimate)
    ]


def _sentence(compared: _Compared, baseline: str, mean: str) -> str:
    """What the comparison says about one algorithm."""
    algorithm, difference, points, where = compared
    if difference is None:
        return f"{algorithm} compared with {baseline} on the final {mean}: {_counts(points)}."
    subject = f"its final {mean}" + f" at {where}" * bool(where)
    subject += f", averaged over the {len(points)} grid points," * (len(points) > 1)
    change = "lower" if difference.estimate < 0 else "higher"
    by = f"{abs(difference.estimate):.3f} {change}" if difference.estimate else "the same"
    kind, seeds = outcome(difference), _seeds([difference])
    if difference.ends is None:
        return f"{algorithm} compared with {baseline}: {subject} is {by} ({seeds})."
    if kind == "equal":
        return f"{algorithm} and {baseline} are equal on every seed: {subject} is the same ({seeds})."
    low, high = difference.ends
    interval = f"95 % interval of the difference: {low:z.3f} to {high:z.3f}, {seeds}".replace("-", "−")
    if kind == "undecided":
        head = f"It is undecided whether {algorithm} is better or worse than {baseline}"
        return f"{head}: {subject} is {by}, which may be due to chance ({interval})."
    return f"{algorithm} is {kind} than {baseline}: {subject} is {by} ({interval})."


def _groups(compared: Sequence[_Compared], baseline: str, mean: str) -> list[str]:
    """Which algorithms are better, worse or neither: a sentence, and the names in each group."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "undecided": [], "equal": []}
    for one in compared:
        if one.main:
            groups[outcome(one.main)].append(one.algorithm)
    grid = ", averaged over the grid points" if any(len(one.points) > 1 for one in compared) else ""
    counts = [
        f"{len(names) or 'none'} {'are' if len(names) > 1 else 'is'} {kind}"
        for kind, names in groups.items()
        if names or kind in ("better", "worse")
    ]
    listed = [f"{kind.capitalize()}: {', '.join(names)}." for kind, names in groups.items() if names]
    return [
        f"Of {len(compared)} algorithms compared with {baseline} on the final {mean}{grid}, {', '.join(counts)} "
        f"({_seeds([one.main for one in compared if one.main])}).",
        *listed,
    ]


def _counts(differences: Sequence[Interval]) -> str:
    """At how many grid points the algorithm is better, worse or neither, and by how much."""
    kinds = Counter(outcome(difference) for difference in differences)
    parts = []
    for kind, change in (("better", "higher"), ("worse", "lower")):
        sizes = [f"{abs(one.estimate):.3f}" for one in differences if outcome(one) == kind]
        by = f" ({' to '.join(sorted({min(sizes), max(sizes)}))} {change})" if sizes else ""
        parts.append(f"{kind} at {len(sizes) or 'none'}{by}")
    parts += [f"{kind} at {kinds[kind]}" for kind in ("undecided", "equal") if kinds[kind]]
    return ", ".join(parts)


def _seeds(differences: Sequence[Interval]) -> str:
    counts = [difference.n for difference in differences]
    if len(set(counts)) > 1:
        return f"{min(counts)} to {max(counts)} seeds"
    return "one seed" if counts[0] == 1 else f"{counts[0]} seeds"
