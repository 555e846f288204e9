"""The study of the family of losses without reference answers: its table, and the page that shows it."""

import pytest

from evals.studies.test_time.table import STUDY, TABLES, holm, main


def test_p_values_are_corrected_step_by_step():
    """Sorted 0.001, 0.01, 0.02, 0.4 times 4, 3, 2, 1: 0.004, 0.03, 0.04, 0.4. Each p-value keeps its place."""
    assert holm([0.02, 0.001, 0.4, 0.01]) == pytest.approx([0.04, 0.004, 0.4, 0.03])
    # 0.03 · 2 = 0.06 is larger than 0.04 · 1, which is raised to 0.06; 0.9 · 2 is cut at 1
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.95]) == [1, 1]


def test_the_page_shows_the_tables_of_the_results(capsys):
    assert any((STUDY / folder).is_dir() for folder in TABLES.values())
    main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (STUDY / "README.md").read_text().splitlines()
    assert len(printed) > 10
    assert [line for line in printed if line not in page] == []
