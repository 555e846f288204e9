"""The study of the family of losses without reference answers: its table, and the page that shows it."""

from dataclasses import replace

import pytest

from evals.shared.results import Cell, Evaluation
from evals.studies.test_time.table import (
    LABELS,
    RIGHT,
    STUDY,
    _median,
    below_start,
    by_sum,
    collapses,
    label_accuracy,
    main,
    tokens_at,
    validation_at,
)


def test_the_page_shows_the_tables_of_the_results(capsys):
    main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (STUDY / "README.md").read_text().splitlines()
    assert len(printed) > 10
    assert [line for line in printed if line not in page] == []


def run(steps, values, tokens=()):
    """A run of the study with these validations, and these tokens at the same steps."""
    series = {"step": steps, RIGHT: values, "num_tokens": tokens or [None] * len(steps)}
    return Cell("grpo", {}, 1, "done", "", "", series=series)


def test_a_run_collapses_below_half_of_its_best_share_of_right_completions_twice():
    steps = [0, 4, 8, 12]
    fallen = run(steps, [0.3, 0.8, 0.39, 0.38])
    once = run(steps, [0.3, 0.8, 0.39, 0.41])
    low = run(steps, [0.3, 0.5, 0.29, 0.28])
    assert [collapses([one]) for one in (fallen, once, low)] == [1, 0, 0]
    assert [below_start([one]) for one in (fallen, once, low)] == [0, 0, 1]
    assert below_start([run(steps, [0.3, 0.5, 0.4, 0.3])]) == 0  # ends where it began


def test_the_label_accuracy_is_the_mean_of_the_last_five_logs():
    cell = run([], [])
    cell.series[LABELS] = [1.0, 0.6, None, 0.5, 0.4, 0.3, None, 0.2]
    assert label_accuracy(cell) == pytest.approx(0.4)


def test_validations_are_interpolated_between_steps():
    """At step 240 of 192 and 288, in the middle of 0.4 and 0.6."""
    assert validation_at(240, [run([0, 192, 288], [0.2, 0.4, 0.6])]) == pytest.approx([0.5])


def test_tokens_are_those_of_the_log_at_the_step():
    one = run([2, 2, 4, 4], [None, 0.3, None, 0.5], [1000, None, 2000, None])
    assert (tokens_at(4, one), tokens_at(None, one)) == (2000, None)


def test_half_of_the_runs_without_a_value_have_no_median():
    """Four runs: with two values the middle of the second and the third is not finite."""
    assert [_median([10, 30, None, None]), _median([10, 30, 51, None]), _median([0, 10])] == ["–", "40", "5"]


def test_shares_by_sum_are_means_over_runs():
    def tested(scores):
        return replace(run([], []), last=Evaluation(1, 4, scores, [], None, [], None, 3.0, 0.0))

    assert by_sum([tested([0.0, 1.0]), tested([0.5, 0.5])]) == [0.25, 0.75]
