"""`PassPlan`: replaces TRL's micro-batches by passes that cost less and give the same gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from .batch import Pass
from .layout import Lengths, as_many, rounded, split
from .shared_prompts import numbers_where_it_pays


@dataclass(frozen=True)
class PassPlan:
    """Arranges the rows of one optimiser step and rank by length, and leaves out rows whose loss is exactly zero.

    This needs a loss that is a weighted sum over rows. TRL decides which rows share an optimiser step, and the plan
    keeps this. All ranks run the same number of passes. A rank with too few rows runs idle passes.

    Args:
        accelerator: The accelerator of the trainer.
        window: Number of consecutive micro-batches that always belong to the same optimiser step.
        budget: Maximum tokens of a pass, including padding. None uses the size of TRL's micro-batch.
        micro_batch_size: Number of rows of TRL's micro-batch.
        arrange: Whether to arrange rows by length. Otherwise each micro-batch is one pass.
        skip: Whether to leave out rows without signal.
        trim: Whether a pass is only as wide as its longest completion.
        pack: Whether the rows of a pass are concatenated without padding.
        few_shapes: Whether the width of a pass is rounded up to one of few values.
    """

    accelerator: Accelerator
    window: int
    budget: int | None
    micro_batch_size: int
    arrange: bool
    skip: bool
    trim: bool
    pack: bool
    few_shapes: bool = False

    def passes(self, micro_batches: Sequence[Pass], *, shares_prompts: bool) -> tuple[list[list[Pass]], float | None]:
        """The passes that are run in place of each micro-batch of one generation.

        Args:
            micro_batches: The micro-batches of this rank, each as one pass with all rows.
            shares_prompts: Whether rows of a pass share their prompts where that runs fewer tokens.

        Returns:
            A list of passes for each micro-batch, which may be empty, and the fraction of rows that run, over all
            ranks. The fraction is None if every micro-batch runs unchanged.
        """
        if micro_batches[0].images and (self.arrange or self.trim):  # TRL's forward pass runs whole rows
            return replace(self, arrange=False, trim=False).passes(micro_batches, shares_prompts=False)
        if not (self.arrange or self.skip):
            return [[one] for one in micro_batches], None
        size = self.window if self.arrange else 1
        windows = [Pass.joined(micro_batches[i : i + size]) for i in range(0, len(micro_batches), size)]
        kept = [self._kept(window) for window in windows]
        plans = [self._plan(window, rows, size, shares_prompts) for window, rows in zip(windows, kept, strict=True)]
        # DeepSpeed counts backward passes to find the end of a step, so every micro-batch needs at least one pass
        least = size if self.accelerator.distributed_type == DistributedType.DEEPSPEED else 1
        own = [*(max(least, len(plan)) for plan in plans), sum(map(len, kept)), sum(len(one.rows) for one in windows)]
        ranks = self.accelerator.gather(torch.tensor(own, device=self.accelerator.device)).view(-1, len(own))
        counts = ranks[:, :-2].amax(0).tolist()  # FSDP needs the same number of forward passes on all ranks
        rows_run, rows = ranks[:, -2:].sum(0).tolist()
        passes = []
        for window, plan, count in zip(windows, plans, counts, strict=True):
            run = [window.take(numbers, self._width(window, numbers)) for numbers in as_many(plan, count)]
            idle = window.shortest
            run += [window.take([idle], self._width(window, [idle])).as_idle()] * (count - len(run))
            passes += [run[i * count // size : (i + 1) * count // size] for i in range(size)]
        return passes, rows_run / rows

    def _width(self, window: Pass, numbers: list[int]) -> int:
        """Number of columns for the completions of some rows."""
        available = window.completion_ids.size(1)
        longest = max(1, *(window.rows[number].completion for number in numbers))
        return min(int(rounded(longest)) if self.few_shapes else longest, available) if self.trim else available

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
            self.few_shapes,
        )
        passes = split(lengths, self.budget or self.micro_batch_size * width, at_most)
        return [[numbers[i] for i in chosen] for chosen in passes]
