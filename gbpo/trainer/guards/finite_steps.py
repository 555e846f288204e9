"""`FiniteSteps`: skips optimiser steps whose loss or gradient is not finite, and names the completions at fault."""

import math
from collections.abc import Callable, Sequence

import torch
from accelerate.logging import get_logger

from ...shared.stopping import TrainingStopped
from ..passes.batch import Pass

logger = get_logger(__name__)

_PER_ROW = {
    "advantages": "advantages",
    "old_logps": "old log-probabilities",
    "ref_logps": "reference log-probabilities",
}


class FiniteSteps:
    """Decides whether an optimiser step is skipped, and names the completions at fault.

    All ranks make the same decision, because the gradient norm covers all ranks.

    Args:
        decode: Converts token ids to text.
        rank: Rank of this process.
        max_skipped: The run ends after this number of skipped steps in a row.
    """

    def __init__(self, decode: Callable[[list[int]], str] = str, rank: int = 0, max_skipped: int = 5):
        self._decode, self._rank, self._max_skipped = decode, rank, max_skipped
        self._skipped_in_a_row = 0

    def skips(self, norm: float | torch.Tensor | None, passes: Sequence[tuple[Pass, torch.Tensor]], step: int) -> bool:
        """Whether the step must be skipped.

        Args:
            norm: Norm of the gradient over all ranks; None if it was not computed.
            passes: The passes that this rank ran for the step, each with its log-probs, (B, T).
            step: Number of the step, from 1.

        Raises:
            TrainingStopped: Too many steps in a row were skipped.
        """
        if norm is None or math.isfinite(norm):
            self._skipped_in_a_row = 0
            return False
        self._skipped_in_a_row += 1
        for line in self._suspects(passes, step):
            logger.warning(line, main_process_only=False)
        if self._skipped_in_a_row >= self._max_skipped:
            raise TrainingStopped(
                f"Loss or gradient were not finite in {self._skipped_in_a_row} optimiser steps in a row, the last of "
                f"them {step}. None of these steps was taken. Resume from the last checkpoint with a lower "
                "learning_rate or max_grad_norm, or in float32."
            )
        return True

    def _suspects(self, passes: Sequence[tuple[Pass, torch.Tensor]], step: int) -> list[str]:
        """One line for each completion of this rank whose loss cannot be finite.

        If there is no such completion, one line names the completion whose log-probs have changed most.
        """
        where = f"Optimiser step {step}, rank {self._rank}"
        lines, furthest = [], (-1.0, "")
        for one, logps in passes:
            mask = one.completion_mask.bool()  # (B, T)
            values = {"log-probabilities": logps}
            values |= {name: getattr(one, field) for field, name in _PER_ROW.items() if getattr(one, field) is not None}
            if one.sampling_logps is not None:  # NaN stands for tokens that vLLM could not score
                values["vLLM's log-probabilities"] = one.sampling_logps.masked_fill(one.sampling_logps.isnan(), 0.0)
            for row in range(len(mask)):
                bad = [
                    name
                    for name, of_rows in values.items()
                    if not (of_rows[row][mask[row]] if of_rows[row].numel() > 1 else of_rows[row]).isfinite().all()
                ]
                if bad:
                    lines.append(f"{where}: {', '.join(bad)} not finite for {self._text(one, row)}")
                elif one.old_logps is not None and mask[row].any():
                    distance = (logps - one.old_logps)[row][mask[row]].abs().max().item()
                    furthest = max(furthest, (distance, self._text(one, row)))
        if lines:
            return [f"{line}. The step is skipped." for line in lines]
        line = f"{where}: the gradient is not finite, but this rank's log-probabilities are. The step is skipped."
        if furthest[1]:
            line += f" The completion with the largest |log ratio| ({furthest[0]:.3g}): {furthest[1]}"
        return [line]

    def _text(self, one: Pass, row: int) -> str:
        texts = []
        for name in ("prompt", "completion"):
            ids = getattr(one, f"{name}_ids")[row][getattr(one, f"{name}_mask")[row].bool()].tolist()
            text = self._decode(ids)
            texts.append(f"{name} {text[:80] + '…' if len(text) > 80 else text!r}")
        return ", ".join(texts)
