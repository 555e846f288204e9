"""Questions to which the algorithms give different answers."""

from __future__ import annotations

from typing import Any

from ..shared.results import Results, label
from .analysis import Analysis

MAX_QUESTIONS = 12
MAX_CHARACTERS = 1500  # per text


def differing_samples(results: Results, analysis: Analysis) -> dict[str, Any] | None:
    """Choose the questions on which the scores of the algorithms differ most.

    The scores are those of the final models of the first seed, at the grid point with the largest difference between
    the algorithms. If completions are missing there, the next seed or grid point is used.

    Returns:
        For the template: `point`, `seed`, `samples` (per question), `differing` (number of questions with different
        scores), `asked` (number of questions) and `questions`. None if no two algorithms have completions to show.
    """
    by_size = sorted(analysis.differences, key=lambda difference: -abs(difference.last.estimate))
    for setting in [difference.setting for difference in by_size]:
        for seed in results.seeds:
            models = [
                (cell.algorithm, cell.last)
                for algorithm in results.algorithms
                for cell in results.done(algorithm, setting)
                if cell.seed == seed and cell.last and cell.last.completions
            ]
            if len(models) < 2 or not results.questions:
                continue
            scores = list(zip(*(last.scores for _, last in models), strict=True))
            spread = [max(of_question) - min(of_question) for of_question in scores]
            chosen = sorted((q for q in range(len(spread)) if spread[q] > 0), key=lambda q: -spread[q])
            shown = [
                {
                    "prompt": _cut(results.questions[q]["prompt"]),
                    "reference": _cut(results.questions[q]["gold"]),
                    "answers": [
                        (algorithm, last.scores[q], _cut(last.completions[q]))
                        for algorithm, last in models
                        if last.completions
                    ],
                }
                for q in chosen[:MAX_QUESTIONS]
            ]
            return {
                "point": label(setting),
                "seed": seed,
                "samples": models[0][1].samples,
                "differing": len(chosen),
                "asked": len(spread),
                "questions": shown,
            }
    return None


def _cut(text: str) -> tuple[str, int]:
    """The start of a text, and the number of characters left out."""
    return text[:MAX_CHARACTERS], max(0, len(text) - MAX_CHARACTERS)
