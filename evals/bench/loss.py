"""Time of the loss as a fraction of a step's forward and backward pass, for GBPO and for TRL.

The loss is `_compute_loss` without the model. Each optimiser step is run twice on the same batch. The first run is
complete. The second run detaches the log-probs from the model, so that its backward pass covers only the loss. The time
of the loss is the second run's time without the model's forward pass. This time includes ratio, target, mask,
aggregation, their gradients, all metrics and the overhead of transformers' `training_step`. The benchmark divides it by
the time of the complete forward and backward pass, without generation, rewards and optimiser. Larger models have a
smaller fraction.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from typing import Any

from trl import GRPOTrainer

from gbpo import GBPOTrainer

from .measuring import BenchResult, Measurement, bench_result
from .timed import Batch, Case, Timed, bench_model, make_trainer


class _Cut(Timed):
    """A trainer whose model can be left out of the backward pass."""

    cut = False

    def _scores(self, score: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Log-probs and entropies from `score`, timed. With `cut`, the log-probs are detached from the model."""
        with self._clock("model"):
            logps, *others = score()
        return logps.detach().requires_grad_() if self.cut else logps, *others

    def forward_and_backward(self, *, cut: bool) -> float:
        """Seconds of one optimiser step or, with `cut`, of the loss alone."""
        self.cut = cut
        self.seconds.clear()
        self.train()  # type: ignore[attr-defined]
        taken = self.seconds["step"] - self.seconds["prepare"]
        return taken - self.seconds["model"] if cut else taken


class _CutGBPO(_Cut, GBPOTrainer):
    def score(self, *args, **kwargs):
        return self._scores(lambda: super(_CutGBPO, self).score(*args, **kwargs))


class _CutGRPO(_Cut, GRPOTrainer):
    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        return self._scores(lambda: super(_CutGRPO, self)._get_per_token_logps_and_entropies(*args, **kwargs))


def run(options: argparse.Namespace) -> BenchResult:
    """Measure the loss, the step, and their ratio in per cent."""
    batch = Batch(Case("skewed", 0.0, 16, 12) if options.quick else Case("skewed", 0.0))
    model = bench_model(options.quick)
    kinds: dict[str, type] = {"GBPO": _CutGBPO, "TRL's GRPO": _CutGRPO}
    with tempfile.TemporaryDirectory() as folder:
        trainers: dict[str, Any] = {
            name: make_trainer(kind, copy.deepcopy(model), batch, folder) for name, kind in kinds.items()
        }
        for trainer in trainers.values():
            trainer.train()  # warm-up
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
