"""The files of one cell. A cell is one run (one algorithm at one grid point with one seed) and its evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbpo.shared.write_whole import write_whole


@dataclass(frozen=True)
class CellFolder:
    """The folder of one cell."""

    path: Path

    @property
    def run(self) -> Path:
        """Output folder of the run."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """Output printed by the run."""
        return self.path / "output.log"

    @property
    def evaluation(self) -> Path:
        """Output of `evals.evaluate`: the final model, then the best checkpoint if there is one."""
        return self.path / "evaluation.json"

    @property
    def record(self) -> dict[str, Any]:
        """`status` (`"done"`, `"failed"` or `"missing"`), `seconds` (of all attempts) and `reason` (of a failure)."""
        path = self.path / "cell.json"
        return json.loads(path.read_text()) if path.is_file() else {"status": "missing", "seconds": 0.0}

    def write_record(self, **record: Any) -> None:
        """Write `record`."""
        write_whole(self.path / "cell.json", json.dumps(record, indent=1, default=str) + "\n")

    @property
    def is_done(self) -> bool:
        """Whether both the run and its evaluation are done."""
        return self.record["status"] == "done" and self.evaluation.is_file()

    def best_checkpoint(self) -> Path | None:
        """Checkpoint with the highest validation reward, or None if none was kept. Ties go to the earliest."""
        states = sorted(self.run.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
        if not states:
            return None
        step = json.loads(states[-1].read_text()).get("best_global_step")
        checkpoint = self.run / f"checkpoint-{step}"
        return checkpoint if any(checkpoint.glob("*.safetensors")) else None
