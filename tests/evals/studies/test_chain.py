"""The study on chains: the page shows its tables, and a loss has the rate of its best validation."""

from evals.shared.results import Cell
from evals.studies.chain.table import STUDY, VALIDATION, main, own_rate, runs


def test_the_page_shows_the_tables_of_the_results(capsys):
    main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (STUDY / "README.md").read_text().splitlines()
    assert len(printed) > 20
    assert [line for line in printed if line not in page] == []


def run(rate, *values):
    series = {"step": list(range(len(values))), VALIDATION: list(values)}
    return Cell("grpo", {"learning_rate": rate}, 1, "done", "", "", series=series)


def test_the_own_rate_has_the_highest_last_validation_on_average():
    found = {
        ("grpo", 1e-5): [run(1e-5, 0.3, 0.5), run(1e-5, 0.3, 0.3)],
        ("grpo", 1e-4): [run(1e-4, 0.3, 0.4), run(1e-4, 0.3, 0.5)],
        ("grpo", 1e-3): [run(1e-3, 0.9, 0.4), run(1e-3, 0.9, 0.4)],
        ("gbpo", 1e-3): [run(1e-3, 0.3, 0.9)],
    }
    assert own_rate(found, "grpo") == 1e-4


def test_every_run_of_the_plan_has_finished():
    four, one = runs("updates-4"), runs("updates-1")
    assert {tuple(cell.seed for cell in cells) for cells in (four | one).values()} == {(1, 2, 3, 4, 5)}
    assert len(four) == 9 and set(one) == {("grpo", 1e-4), ("grpo", 3e-4)}
