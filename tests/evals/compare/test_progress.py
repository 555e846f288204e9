"""The progress of the running cells, read from their folders."""

import io
import json
import sys
import threading
from types import SimpleNamespace

import pytest

from evals.compare import run_cells as module
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


class Stream(io.StringIO):
    """A terminal or a file."""

    def __init__(self, is_terminal, on_flush=lambda text: None):
        super().__init__()
        self.isatty = lambda: is_terminal
        self.on_flush = on_flush

    def flush(self):
        self.on_flush(self.getvalue())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_file_gets_a_line_for_each_cell_at_its_end_and_only_a_terminal_a_bar(is_terminal, tmp_path, monkeypatch):
    """The second cell ends after the line of the first was written, which is flushed."""
    written = threading.Event()

    class Runner:
        def __init__(self, plan, model):
            self.interrupt = lambda *args: None
            self.evaluate = lambda *args: None
            self.progress = lambda: (0.5, "step 1 of 2")
            self.end = lambda: None

        def run_cell(self, point, seed):
            assert seed == 0 or written.wait(60)
            return f"grpo, seed {seed}: done in 3 s"

    monkeypatch.setattr(module, "_Runner", Runner)
    monkeypatch.setattr(module.models, "local_model", lambda name: name)
    lines = Stream(is_terminal, lambda text: text.strip().endswith("seed 0: done in 3 s") and written.set())
    monkeypatch.setattr(sys, "stdout", lines)
    monkeypatch.setattr(sys, "stderr", Stream(is_terminal))
    plan = SimpleNamespace(
        base=SimpleNamespace(model=SimpleNamespace(model_name_or_path="model")),
        cells=[(SimpleNamespace(same_as=None), seed) for seed in (0, 1)],
        seeds=[0, 1],
        cell_folder=lambda *cell: SimpleNamespace(is_done=False),
        folder=tmp_path,
        jobs=1,
    )
    assert not module.run_cells(plan)
    assert lines.getvalue().split("\n") == ["grpo, seed 0: done in 3 s", "grpo, seed 1: done in 3 s", ""]
    assert ("step 1 of 2" in sys.stderr.getvalue()) == is_terminal == bool(sys.stderr.getvalue())
