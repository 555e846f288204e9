"""`FiniteGRPOTrainer`: TRL's GRPOTrainer that takes no step on a loss or gradient that is not finite."""

import math
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from trl import GRPOTrainer

from ...shared.stopping import TrainingStopped

logger = get_logger(__name__)

_ROW_TENSORS = ("advantages", "old_per_token_logps", "ref_per_token_logps", "importance_sampling_ratio")


class FiniteGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer that skips an optimiser step whose loss or gradient is not finite, on all ranks.

    The gradient's norm is that of all ranks, so that they decide alike. A skipped step leaves weights and optimiser as
    they are, names the completions at fault in the log, and counts in the metric `skipped_steps`, the share of skipped
    steps. Under fp16 the gradient scaler does the skipping, as part of finding its scale.

    Raises:
        TrainingStopped: After `max_skipped_steps` such steps in a row.
    """

    max_skipped_steps = 5

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._skipped_in_a_row = 0
        # what was run since the last optimiser step: the batches with their log-probs, (B, T)
        self._step_passes: list[tuple[dict[str, Any], torch.Tensor]] = []
        self._last_logps: torch.Tensor | None = None

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if torch.is_grad_enabled():
            self._last_logps = result[0].detach()
        return result

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self._last_logps is not None:
            self._step_passes.append((inputs, self._last_logps))
            self._last_logps = None
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        skipped = norm is not None and not math.isfinite(norm) and self.accelerator.scaler is None
        self._metrics["train"]["skipped_steps"].append(float(skipped))
        if skipped:
            self._skip_step()
        else:
            self._skipped_in_a_row = 0
        self._step_passes.clear()
        return norm

    def _skip_step(self) -> None:
        self._skipped_in_a_row += 1
        for line in self._suspects():
            logger.warning(line, main_process_only=False)
        if self.accelerator.distributed_type != DistributedType.DEEPSPEED:  # which has skipped it by now
            self.optimizer.zero_grad()  # to None: no weight and no moment changes
        if self._skipped_in_a_row >= self.max_skipped_steps:
            raise TrainingStopped(
                f"Loss or gradient were not finite in {self._skipped_in_a_row} optimiser steps in a row, the last of "
                f"them {self.state.global_step + 1}; no such step was taken. Go on from the last checkpoint with a "
                "lower learning_rate or max_grad_norm, or in float32."
            )

    def _suspects(self) -> list[str]:
        """One line for each completion of this rank and step whose loss cannot be finite; else what is known."""
        where = f"Optimiser step {self.state.global_step + 1}, rank {self.accelerator.process_index}"
        lines, furthest = [], (-1.0, "")
        for inputs, logps in self._step_passes:
            mask = inputs["completion_mask"].bool()  # (B, T)
            per_token = {"log-probabilities": logps} | {key: inputs[key] for key in _ROW_TENSORS if key in inputs}
            for row in range(len(mask)):
                bad = [
                    name
                    for name, values in per_token.items()
                    if not (values[row][mask[row]] if values[row].numel() > 1 else values[row]).isfinite().all()
                ]
                if bad:
                    lines.append(f"{where}: {', '.join(bad)} not finite for {self._shown(inputs, row)}")
                elif "old_per_token_logps" in inputs and mask[row].any():
                    distance = (logps - inputs["old_per_token_logps"])[row][mask[row]].abs().max().item()
                    furthest = max(furthest, (distance, self._shown(inputs, row)))
        if lines:
            return [f"{line}; the step is skipped." for line in lines]
        line = f"{where}: the gradient is not finite, though this rank's log-probabilities are; the step is skipped."
        if furthest[1]:
            line += f" The completion furthest from its sampling policy (|log ratio| {furthest[0]:.3g}): {furthest[1]}"
        return [line]

    def _shown(self, inputs, row: int) -> str:
        texts = []
        for name in ("prompt", "completion"):
            ids = inputs[f"{name}_ids"][row][inputs[f"{name}_mask"][row].bool()].tolist()
            text = self.processing_class.decode(ids)
            texts.append(f"{name} {text[:80] + '…' if len(text) > 80 else text!r}")
        return ", ".join(texts)
