"""The loss as a share of a step's forward and backward: `_compute_loss` without the model, GBPO's beside TRL's.

A step is taken twice on the same batch: whole, and with the model's log-probs cut from its graph, so that backward runs
through the loss alone. What the second takes less the model's forward is the loss: ratio, target, mask, aggregation,
their gradients and all metrics, and what transformers' `training_step` does around them. The share is that over the
whole forward and backward, without generation, rewards and optimiser. With a larger model it is smaller.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from typing import Any

from trl import GRPOTrainer

from gbpo import GBPOTrainer

from .measuring import BenchResult, Measurement, bench_result
from .timed import Batch, Case, Timed, bench_model, make_trainer


class _Cut(Timed):
    """A trainer whose model can be left out of backward."""

    cut = False

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        with self._clock("model"):
            found = super()._get_per_token_logps_and_entropies(*args, **kwargs)  # type: ignore[misc]
        if not self.cut:
            return found
        logps, *others = found
        return logps.detach().requires_grad_(), *others

    def forward_and_backward(self, *, cut: bool) -> float:
        """Seconds of one optimiser step, of the loss alone where the model is cut off."""
        self.cut = cut
        self.seconds.clear()
        self.train()  # type: ignore[attr-defined]
        taken = self.seconds["step"] - self.seconds["prepare"]
        return taken - self.seconds["model"] if cut else taken


class _CutGBPO(_Cut, GBPOTrainer):
    pass


class _CutGRPO(_Cut, GRPOTrainer):
    pass


def run(options: argparse.Namespace) -> BenchResult:
    """Seconds of the loss and of the step, and their ratio in per cent."""
    batch = Batch(Case("skewed", 0.0, 16, 12) if options.quick else Case("skewed", 0.0))
    model = bench_model(options.quick)
    kinds: dict[str, type] = {"GBPO": _CutGBPO, "TRL's GRPO": _CutGRPO}
    with tempfile.TemporaryDirectory() as folder:
        trainers: dict[str, Any] = {
            name: make_trainer(kind, copy.deepcopy(model), batch, folder) for name, kind in kinds.items()
        }
        for trainer in trainers.values():
            trainer.train()  # warms up
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in range(options.repeats):
            for name, trainer in trainers.items():
                taken[name].append((trainer.forward_and_backward(cut=True), trainer.forward_and_backward(cut=False)))
    found = []
    for name, pairs in taken.items():
        found.append(Measurement(f"{name}, loss", [loss for loss, _ in pairs], "s"))
        found.append(Measurement(f"{name}, forward and backward", [step for _, step in pairs], "s"))
        found.append(Measurement(f"{name}, share of the loss", [100 * loss / step for loss, step in pairs], "%"))
    return bench_result(found)
