"""Loading local data files."""

import json
import re

import pytest
from datasets import Dataset

from rewards.shared.data_files import FILE_FORMATS, load_file

ROWS = [{"question": "2+2", "solution": "4"}, {"question": "3+3", "solution": "6"}]


@pytest.fixture
def write_rows(tmp_path):
    """Writes `ROWS` to a file with the given suffix."""

    def write(suffix):
        path = tmp_path / f"rows{suffix}"
        if suffix == ".parquet":
            Dataset.from_list(ROWS).to_parquet(path)
        elif suffix == ".csv":
            Dataset.from_list(ROWS).to_csv(path)
        elif suffix == ".json":
            path.write_text(json.dumps(ROWS))
        else:
            path.write_text("\n".join(map(json.dumps, ROWS)))
        return path

    return write


@pytest.mark.parametrize("suffix", FILE_FORMATS)
def test_every_format_is_loaded(write_rows, suffix):
    dataset = load_file(str(write_rows(suffix)))
    assert [row["question"] for row in dataset] == ["2+2", "3+3"]
    assert list(map(str, dataset["solution"])) == ["4", "6"]


def test_the_home_folder_is_expanded(write_rows, monkeypatch):
    monkeypatch.setenv("HOME", str(write_rows(".jsonl").parent))
    assert len(load_file("~/rows.jsonl")) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.txt", "4", "is not a .jsonl, .json, .parquet, .csv file"),
        ("missing.jsonl", None, "not found from"),
        ("rows.jsonl", "", "has zero rows"),
        ("rows.jsonl", "\n\n", "has zero rows"),
        ("rows.csv", "question,solution\n", "has zero rows"),
        ("rows.jsonl", '{"question": ', "cannot be read as .jsonl"),
        ("rows.parquet", "4", "cannot be read as .parquet"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line_that_begins_with_its_path(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(repr(str(path)))} {re.escape(reason)}") as refused:
        load_file(path)
    assert "\n" not in str(refused.value)
