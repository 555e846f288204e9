"""`PassPlan`: from TRL's micro-batches to the passes that are run in their place, at the same gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from .batch import Pass
from .layout import Lengths, as_many, split
from .shared_prompts import numbers_where_it_pays


@dataclass(frozen=True)
class PassPlan:
    """Rows of one optimiser step and rank, arranged by length; rows whose loss is exactly zero are left out.

    For losses that are sums over rows with a weight each. Which rows share an optimiser step stays as TRL decided. All
    ranks run the same number of passes, some of them idle where a rank has too few rows.

    Args:
        accelerator: The trainer's.
        window: Micro-batches of TRL that are certain to share an optimiser step.
        budget: Maximum tokens of a pass, padding included; None for those of TRL's micro-batch.
        micro_batch_size: Rows of TRL's micro-batch.
        arrange: Arrange rows by length; otherwise each micro-batch is one pass.
        skip: Leave out rows without signal.
        trim: Passes are as wide as their longest completion.
        pack: Rows of a pass are concatenated.
    """

    accelerator: Accelerator
    window: int
    budget: int | None
    micro_batch_size: int
    arrange: bool
    skip: bool
    trim: bool
    pack: bool

    def passes(self, micro_batches: Sequence[Pass], *, shares_prompts: bool) -> tuple[list[list[Pass]], float | None]:
        """The passes that are run in place of each micro-batch of one generation.

        Args:
            micro_batches: All rows of each micro-batch of this rank.
            shares_prompts: Rows of a pass share their prompts where that runs fewer tokens.

        Returns:
            For each micro-batch a list of passes, which may be empty; the fraction of rows that are run on all ranks,
            None if every micro-batch is run as it is.
        """
        if micro_batches[0].images or not (self.arrange or self.skip):
            return [[one] for one in micro_batches], None
        size = self.window if self.arrange else 1
        windows = [Pass.joined(micro_batches[i : i + size]) for i in range(0, len(micro_batches), size)]
        kept = [self._kept(window) for window in windows]
        plans = [self._plan(window, rows, size, shares_prompts) for window, rows in zip(windows, kept, strict=True)]
        # DeepSpeed counts micro-batches by their backward passes
        least = size if self.accelerator.distributed_type == DistributedType.DEEPSPEED else 1
        own = [*(max(least, len(plan)) for plan in plans), sum(map(len, kept)), sum(len(one.rows) for one in windows)]
        ranks = self.accelerator.gather(torch.tensor(own, device=self.accelerator.device)).view(-1, len(own))
        counts = ranks[:, :-2].amax(0).tolist()  # FSDP runs in step
        rows_run, rows = ranks[:, -2:].sum(0).tolist()
        passes = []
        for window, plan, count in zip(windows, plans, counts, strict=True):
            run = [window.take(numbers, trim=self.trim) for numbers in as_many(plan, count)]
            run += [window.as_idle(trim=self.trim)] * (count - len(run))
            passes += [run[i * count // size : (i + 1) * count // size] for i in range(size)]
        return passes, rows_run / rows

    def _kept(self, window: Pass) -> list[int]:
        return [number for number, row in enumerate(window.rows) if row.has_signal or not self.skip]

    def _plan(self, window: Pass, numbers: list[int], at_most: int, shares_prompts: bool) -> list[list[int]]:
        if not numbers or not self.arrange:
            return [numbers] if numbers else []
        rows = [window.rows[number] for number in numbers]
        width = window.prompt_ids.size(1) + window.completion_ids.size(1)
        lengths = Lengths(
            np.array([row.prompt for row in rows]),
            np.array([row.completion for row in rows]),
            self.pack,
            numbers_where_it_pays(rows) if shares_prompts else None,
        )
        passes = split(lengths, self.budget or self.micro_batch_size * width, at_most)
        return [[numbers[i] for i in chosen] for chosen in passes]
