"""The study of the family of losses without reference answers: its table, and the page that shows it."""

from evals.studies.test_time.table import STUDY, confirmed, explored


def test_the_page_shows_the_tables_of_the_results(capsys):
    explored()
    confirmed()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (STUDY / "README.md").read_text().splitlines()
    assert len(printed) > 10
    assert [line for line in printed if line not in page] == []
