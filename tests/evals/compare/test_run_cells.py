"""The order of the cells, their GPUs, and whether a run has finished."""

import sys
from types import SimpleNamespace

import pytest

from evals.compare import run_cells as module


def test_the_runs_of_a_seed_come_together(tmp_path, monkeypatch):
    """An interrupted comparison then has pairs."""
    ran = []

    class Runner:
        def __init__(self, plan, model):
            self.interrupt = self.evaluate = lambda *args: None
            self.progress, self.end = lambda: (0.0, ""), lambda: None

        def run_cell(self, point, seed):
            ran.append((point.name, seed))
            return "done"

    monkeypatch.setattr(module, "_Runner", Runner)
    monkeypatch.setattr(module.models, "local_model", lambda name: name)
    points = [SimpleNamespace(name=name, same_as=None) for name in ("grpo", "gbpo")]
    plan = SimpleNamespace(
        base=SimpleNamespace(model=SimpleNamespace(model_name_or_path="model")),
        cells=[(point, seed) for point in points for seed in (3, 1)],
        cell_folder=lambda *cell: SimpleNamespace(is_done=False),
        folder=tmp_path,
        jobs=1,
        seeds=[3, 1],
    )
    module.run_cells(plan)
    assert sorted(ran[:2]) == [("gbpo", 3), ("grpo", 3)] and sorted(ran[2:]) == [("gbpo", 1), ("grpo", 1)]


@pytest.mark.parametrize(
    ("launcher", "jobs", "visible", "expected"),
    [
        ([sys.executable], 1, None, ["0"]),  # a single process would use DataParallel
        ([sys.executable], 3, None, ["0", "1", "2"]),
        ([sys.executable], 5, "4,5,6,7", ["4", "5", "6", "7", "4"]),
        (["accelerate", "launch"], 1, None, [None]),
        (["accelerate", "launch"], 2, None, ["0,1", "2,3"]),
        (["accelerate", "launch"], 2, "4,5,6,7", ["4,5", "6,7"]),
        (["accelerate", "launch"], 3, None, ["0", "1", "2"]),
    ],
)
def test_parallel_runs_share_out_four_gpus(launcher, jobs, visible, expected, monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    runner = module._Runner(SimpleNamespace(launcher=launcher, jobs=jobs), "model")
    assert [runner._environment(slot).get("CUDA_VISIBLE_DEVICES") for slot in range(jobs)] == expected


@pytest.mark.parametrize(
    ("report", "finished"),
    [
        (None, False),
        ("", False),
        ("ended at step 3: killed; last\n", False),
        ("a\nended at step 3: finished; last\n", True),
    ],
)
def test_a_run_has_finished_if_its_report_says_so(report, finished, tmp_path):
    """The report is empty if the disk was full."""
    if report is not None:
        (tmp_path / "report.txt").write_text(report)
    assert module._is_finished(tmp_path) is finished
