"""The sentences at the top of a report, which sum up all of its verdicts."""

from __future__ import annotations

from gbpo.shared.pages.formatting import number

from ..shared.estimates import is_finite
from ..shared.results import label
from .analysis import Analysis
from .formatting import bounds


def answer(analysis: Analysis, mean: str) -> list[str]:
    """Sum up the verdicts, one sentence each.

    Args:
        analysis: The numbers of the report.
        mean: Name of the final reward, for example `"mean@8"`.
    """
    finals = [summary for summary in analysis.summaries if summary.last and is_finite(summary.last.estimate)]
    if not finals:
        return ["No run finished, so there is nothing to compare."]
    top = max(finals, key=lambda summary: summary.last.estimate if summary.last else 0.0)
    assert top.last is not None
    place = " at ".join(filter(None, (top.algorithm, label(top.setting))))
    score = " ".join(filter(None, (number(top.last.estimate), bounds(top.last))))
    lines = [f"Highest final {mean}: {score}, {place}."]
    if len({summary.algorithm for summary in analysis.summaries}) == 1:
        return [*lines, "Only one algorithm was run, so there is no comparison."]
    if not analysis.differences:
        return [*lines, "No two finished runs share a seed and a grid point, so no difference can be computed."]
    if not any(difference.last.ends for difference in analysis.differences):
        return [*lines, "With one seed there is no confidence interval: any difference may be due to chance."]
    if len({label(difference.setting) for difference in analysis.differences}) == 1:
        return lines
    for algorithm in dict.fromkeys(difference.algorithm for difference in analysis.differences):
        intervals = [difference.last for difference in analysis.differences if difference.algorithm == algorithm]
        better = sum(interval.excludes_zero and interval.estimate > 0 for interval in intervals)
        worse = sum(interval.excludes_zero and interval.estimate < 0 for interval in intervals)
        lines.append(
            f"{algorithm} compared with {analysis.baseline}: better at {better} of {len(intervals)} grid points, "
            f"worse at {worse}, no significant difference at {len(intervals) - better - worse}."
        )
    lines += [verdict for difference in analysis.overall for verdict in difference.verdicts]
    return [
        *lines,
        "The intervals are not corrected for multiple comparisons. On average, one in twenty misses the true value.",
    ]
