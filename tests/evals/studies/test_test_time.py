"""The study of the family of losses without reference answers: its table, and the page that shows it."""

from evals.studies.test_time.table import STUDY, TABLES, main


def test_the_page_shows_the_tables_of_the_results(capsys):
    assert any((STUDY / folder).is_dir() for folder in TABLES.values())
    main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (STUDY / "README.md").read_text().splitlines()
    assert len(printed) > 10
    assert [line for line in printed if line not in page] == []
