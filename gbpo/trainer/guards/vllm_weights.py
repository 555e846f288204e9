"""Checks that vLLM samples from the policy that is trained, not from outdated weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger

from ...shared.stopping import TrainingStopped
from ..passes.batch import policy_mask

logger = get_logger(__name__)

Batch = Mapping[str, Any]

# Maximum mean |engine - trainer| of the log-probs that rounding explains, by the dtype of the engine. Two
# implementations of a model differ by less than 1e-4 in float32, and in half precision by 1e-3 (small models) to 0.05
# (large models and mixtures of experts). A bfloat16 engine differs from a float32 trainer by 0.02 or more. An engine
# that never receives weights differs by 0.2 after an update of some size.
TOLERANCE = {torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 0.1}
_FLOOR = 0.01  # as a fraction of the tolerance; differences below it are rounding, even when they grow
# The same if the engine gets rounded sums of weights and adapter. Their rounding caused gaps of 0.003 to 0.008 in
# random models of width 256 and 512.
_FLOOR_MERGED = 0.1
# Measured with the embedded model: the log-probs of a synced bfloat16 engine differed from the trainer's by 0.005 to
# 0.0075 for ten generations, however far the policy moved. Without a weight sync, the difference was 0.7 to 1.1 times
# the movement of the policy at every sync, at both learning rates tried.
_FACTOR = 5  # one number is significantly larger than another if it exceeds this multiple of the other
_MISSING = 0.05  # if the gap exceeds this fraction of the movement, some weights do not arrive, or arrive rounded


def engine_dtype(weights: torch.dtype, mixed_precision: str) -> torch.dtype:
    """The dtype in which the trainer computes: that of mixed precision if it is on, otherwise that of the weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision, weights)


@dataclass
class WeightCheck:
    """Compares vLLM's log-probs of its samples with the trainer's, until it is proven that vLLM has the weights.

    The gap is the mean |engine - trainer| of the log-probs. A small gap after the first sync proves little, because the
    engine loaded the same weights from disk. So the check keeps rows of the first generation. From the second sync on,
    it measures the movement: how far the trainer's log-probs of these rows have changed since. If no weights arrived,
    the gap would be about as large as the movement. A gap far below the movement proves that the weights arrived.

    Args:
        accelerator: The accelerator of the trainer.
        dtype: The dtype of the engine.
        biased: Whether the sampler changes the distribution by design. Then only a growing gap is an error.
        fix: How to repair the weight sync, for the error message.
        merges: Whether the engine gets sums of weights and adapter. In half precision they are rounded, and the first
            gap does not contain this rounding, because a new adapter is 0.
    """

    accelerator: Accelerator
    dtype: torch.dtype
    biased: bool
    fix: str
    merges: bool = False
    proven: bool = False
    first_gap: float = 0.0  # mean |engine - trainer| of the log-probs, after the first sync
    first_rows: Batch | None = field(default=None, repr=False)  # rows of the first generation, with old_per_token_logps

    def check(
        self,
        batch: Batch,
        some_rows: Callable[[Any], Any],
        policy_logps: Callable[[Any], torch.Tensor],
        step: int,
    ) -> dict[str, float]:
        """Compare the log-probs of one generation. All ranks call this together.

        Args:
            batch: The generation, with the engine's log-probs `sampling_per_token_logps`, (B, T).
            some_rows: Called with a generation; returns the rows to compare.
            policy_logps: Called with a batch; returns the trainer's log-probs of the completions, (B, T).
            step: Number of optimiser steps taken.

        Returns:
            `gbpo/vllm_logp_gap` and `gbpo/vllm_logp_movement`. Empty if the weights are already proven.

        Raises:
            TrainingStopped: The engine does not sample from the policy.
        """
        if self.proven:
            return {}
        rows = some_rows(batch)
        logps = policy_logps(rows)
        gap = self._mean((logps - rows["sampling_per_token_logps"]).abs(), rows)
        if self.first_rows is None:
            self.first_gap, movement = gap, 0.0
            self.first_rows = {**rows, "old_per_token_logps": logps}
        else:
            moved = policy_logps(self.first_rows) - self.first_rows["old_per_token_logps"]
            movement = self._mean(moved.abs(), self.first_rows)
        if not self.judge(gap, movement):
            raise TrainingStopped(
                f"vLLM does not sample from the policy that is trained: at step {step} its log-probs of its own "
                f"samples differ from the trainer's by {gap:.2g} on average. {self.dtype} explains at most "
                f"{TOLERANCE[self.dtype]:g}. They differed by {self.first_gap:.2g} at first, and the policy has moved "
                f"by {movement:.2g} since. {self.fix}."
            )
        if self.proven:
            logger.info(
                f"vLLM has the trained weights: its log-probs differ by {gap:.2g} from the trainer's. Weights that "
                f"never arrived would differ by {movement:.2g} (step {step})."
            )
        return {"gbpo/vllm_logp_gap": gap, "gbpo/vllm_logp_movement": movement}

    def judge(self, gap: float, movement: float) -> bool:
        """Whether the run may continue. Sets `proven` once the weights are proven to arrive.

        Args:
            gap: Mean |engine - trainer| of the log-probs of the tokens that the engine just sampled.
            movement: Mean |now - then| of the trainer's log-probs of the first generation.
        """
        tolerance = TOLERANCE[self.dtype]
        floor = tolerance * (_FLOOR_MERGED if self.merges and self.dtype != torch.float32 else _FLOOR)
        grown = gap > _FACTOR * max(self.first_gap, floor)
        self.proven = not grown and movement > _FACTOR * max(gap, floor)
        return not (grown and gap > _MISSING * movement) and (self.biased or gap <= tolerance)

    def _mean(self, values: torch.Tensor, rows: Batch) -> float:
        """Mean over the sampled tokens of all ranks, without NaN, which stands for tokens that vLLM could not score."""
        mask = policy_mask(rows).bool() & ~values.isnan()
        sums = torch.stack([values[mask].double().sum(), mask.sum().double()]).float()
        total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        return total / max(count, 1.0)
