"""What the results of a comparison say about the tests of its runs."""

from evals.compare.collect_results import _ungraded_notes


def test_ungraded_completions_of_a_test_are_noted(make_cell):
    cells = [make_cell("grpo", 0, [1, 2]), make_cell("gbpo", 0, [1, 2])]
    assert _ungraded_notes(cells) == []
    cells[1].last.ungraded, cells[1].best.ungraded = 3, 1
    # two models with two questions, four samples and a greedy completion
    assert _ungraded_notes(cells) == [
        "The reward left 4 of 20 completions of the test in gbpo-0 ungraded. They count as 0. To test again, delete "
        "gbpo-0/evaluation.json and repeat the command."
    ]
