"""The progress of the running cells, read from their folders."""

import json
from types import SimpleNamespace

import pytest

from evals.compare.cell_folder import CellFolder
from evals.compare.progress import progress


@pytest.fixture
def cell(tmp_path):
    found = CellFolder(tmp_path)
    found.run.mkdir()
    return found


def log(cell, *rows):
    (cell.run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_of_some_steps(cell):
    training = SimpleNamespace(max_steps=60, num_train_epochs=3.0)
    assert progress(cell, training) == (0, "starting")
    log(cell, {"step": 0, "epoch": 0}, {"step": 15, "epoch": 0.5})
    assert progress(cell, training) == (0.9 * 0.25, "step 15 of 60")
    cell.write_record(status="done", seconds=3.0)
    assert progress(cell, training) == (0.9, "testing")


def test_a_run_of_some_epochs(cell):
    training = SimpleNamespace(max_steps=-1, num_train_epochs=2.0)
    log(cell, {"step": 15, "epoch": 0.5})
    assert progress(cell, training) == (0.9 * 0.25, "step 15")
