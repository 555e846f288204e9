"""`PassesGRPOTrainer`: TRL's GRPOTrainer that arranges the rows of each optimiser step into passes of like length."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from trl.models.utils import disable_gradient_checkpointing

from . import shared_prompts as sharing
from .unpadded import TrimmedGRPOTrainer

logger = get_logger(__name__)

Batch = dict[str, Any]

# What one more pass costs, as a share of a full one: it is opened where it saves more padding than this.
_OVERHEAD = 1 / 64
_PROMPT = ("prompt_ids", "prompt_mask")

# What a vision-language model needs beside the tokens; passed on untouched.
_MULTIMODAL_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


@dataclass(frozen=True)
class Rows:
    """What rows cost together, by the tokens of their prompts and completions, each (B,).

    Args:
        prompts: Tokens of each row's prompt.
        completions: Tokens of each row's completion.
        packed: Rows lie behind each other, without padding.
        prompt_of: Which prompt each row has, (B,), where a prompt is run once for the rows that have it; else None.
    """

    prompts: np.ndarray
    completions: np.ndarray
    packed: bool = False
    prompt_of: np.ndarray | None = None

    def orders(self) -> list[np.ndarray]:
        """Rows in the orders in which they may be cut into passes: by length, and by prompt where that is shared."""
        orders = [np.argsort(self.prompts + self.completions, kind="stable")]
        if self.prompt_of is not None:
            longest = np.zeros(self.prompt_of.max() + 1, dtype=int)  # completion of each prompt
            np.maximum.at(longest, self.prompt_of, self.completions)
            orders.append(np.lexsort((self.completions, self.prompt_of, longest[self.prompt_of])))
        return orders

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """Tokens, with padding, of a pass of the last of these rows: of all, all but the first, …, the last; (B,)."""
        prompts, completions = self.prompts[rows][::-1], self.completions[rows][::-1]
        if self.packed:
            return (prompts + completions).cumsum()[::-1]
        count, longest = np.arange(1, len(rows) + 1), np.maximum.accumulate
        alone = count * longest(prompts + completions)
        if self.prompt_of is not None:
            prompt_of = self.prompt_of[rows][::-1]
            different = 1 + np.cumsum(np.diff(prompt_of, prepend=prompt_of[:1]) != 0)
            shared = sharing.cost(different, longest(prompts), count, longest(completions))
            alone = np.where(sharing.is_cheaper(shared, alone), shared, alone)
        return alone[::-1]


def split(rows: Rows, budget: int, at_most: int) -> list[list[int]]:
    """Rows in passes that cost least together: their tokens with padding, and a little for each pass.

    Args:
        rows: What they cost.
        budget: The most tokens of one pass, padding included. A longer row is a pass of its own.
        at_most: The most passes, unless the budget asks for more.

    Returns:
        Indices of rows, the longest rows first or, where it costs less, those of a prompt together; every row once.

    >>> split(Rows(np.array([1, 1, 1, 1, 1]), np.array([2, 89, 3, 99, 2])), budget=200, at_most=2)
    [[3, 1], [2, 4, 0]]
    """
    orders = rows.orders()
    if at_most == 1 and rows.tokens(orders[0])[0] <= budget:
        return [orders[0][::-1].tolist()]
    plans = []
    for order in orders:
        overhead = _OVERHEAD * budget
        while len(bounds := _cheapest(rows, order, budget, overhead)) > at_most and overhead <= budget * len(order):
            overhead *= 2
        passes = [order[first:end] for first, end in bounds]
        cost = sum(float(rows.tokens(one)[0]) + _OVERHEAD * budget for one in passes)
        plans.append((len(passes) > at_most, cost, [one[::-1].tolist() for one in passes]))
    return min(plans)[-1]


def _cheapest(rows: Rows, order: np.ndarray, budget: int, overhead: float) -> list[tuple[int, int]]:
    """First and last row of each pass, the last excluded, the last pass first; by dynamic programming."""
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        tokens = rows.tokens(order[:end])  # (end,), by begin
        fits = tokens <= budget
        fits[-1] = True
        costs = np.where(fits, least[:end] + tokens, np.inf)
        begins[end] = costs.argmin()
        least[end] = costs.min() + overhead
    bounds, end = [], len(order)
    while end:
        bounds.append((int(begins[end]), end))
        end = begins[end]
    return bounds


def as_many(passes: list[list[int]], count: int) -> list[list[int]]:
    """The passes, those of most rows halved until there are `count`, or none has two rows.

    >>> as_many([[5, 4], [3, 2, 1, 0]], 3)
    [[5, 4], [3, 2], [1, 0]]
    """
    passes = list(passes)
    while len(passes) < count and max(map(len, passes), default=0) > 1:
        most = max(range(len(passes)), key=lambda i: len(passes[i]))
        rows, half = passes[most], (len(passes[most]) + 1) // 2
        passes[most : most + 1] = [rows[:half], rows[half:]]
    return passes


class PassesGRPOTrainer(TrimmedGRPOTrainer):
    """TRL's GRPOTrainer whose optimiser steps run their rows in fewer and narrower passes, at the same gradient.

    For losses that are sums over rows, each with a weight of its own that `_row_weights` takes from TRL's micro-batch.
    The rows of one optimiser step, of one rank, are arranged by length into passes of at most
    `max_tokens_per_micro_batch` tokens (`arrange_rows`); rows whose loss is exactly zero are left out
    (`skip_zero_signal`). All ranks run as many passes, where needed on a row that counts nothing. Which rows share an
    optimiser step stays as TRL drew it. The first step of a generation finds its old log-probs itself, and those of
    later steps are computed for the rows that are run (`reuse_first_pass`).

    A micro-batch of TRL becomes a list of passes, each a dict of the same tensors; metrics cover the rows that are run.
    """

    _buffered_inputs: Any

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for line in self._left_to_trl():
            logger.warning(line)

    def _left_to_trl(self) -> list[str]:
        """What is not done because it would not be exact, one line each."""
        lines = []
        if self.args.arrange_rows and not self._arranges:
            lines.append(
                "Rows are not arranged by length: the loss depends on which rows share a micro-batch "
                "(top_entropy_quantile, load balancing of experts)."
            )
        if self.args.skip_zero_signal and not self._skips:
            lines.append(
                "Rows with advantage 0 are run: KL, entropy or load balancing of experts give them a gradient."
            )
        return lines

    @property
    def _arranges(self) -> bool:
        return self.args.arrange_rows and self.top_entropy_quantile == 1.0 and not self.aux_loss_enabled

    @property
    def _skips(self) -> bool:
        has_other_terms = self.beta != 0.0 or self._entropy_bonus_enabled or self.aux_loss_enabled
        return self.args.skip_zero_signal and not has_other_terms and self.top_entropy_quantile == 1.0

    def _row_weights(self, inputs: Batch) -> dict[str, torch.Tensor]:
        """What multiplies the sums over the tokens of each row, (B,), by names that the loss reads."""
        raise NotImplementedError

    def _generate_and_score_completions(self, inputs):
        iterations = self.num_iterations
        if self._finds_old_logps:  # a number at which TRL computes none
            self.num_iterations = Fraction(self.args.gradient_accumulation_steps, self.args.steps_per_generation)
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.num_iterations = iterations

    @property
    def _finds_old_logps(self) -> bool:
        return self.args.reuse_first_pass and self._aligned and not self._noisy

    @property
    def _aligned(self) -> bool:
        """Whether a generation is some whole optimiser steps, or an optimiser step some whole generations."""
        small, large = sorted((self.args.steps_per_generation, self.args.gradient_accumulation_steps))
        return large % small == 0

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        current = self._step % self.args.steps_per_generation
        if self._buffered_inputs is not before:
            passes = self._arranged(self._buffered_inputs)
            end = current + self.args.gradient_accumulation_steps  # of the first optimiser step
            self._add_old_logps([one for micro_batch in passes[:current] + passes[end:] for one in micro_batch])
            self._buffered_inputs = passes
        return self._buffered_inputs[current]

    @torch.no_grad()
    def _add_old_logps(self, passes: list[Batch]) -> None:
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            for one in passes:
                if "old_per_token_logps" not in one:
                    one["old_per_token_logps"] = self._scores(self.model, one)[0]

    def _scores(self, model, inputs: Batch, **options) -> tuple[torch.Tensor, Any, Any]:
        """Log-probs and, on request, entropies of the completions, (B, T), and the loss of the experts' balance."""
        completion_ids = inputs["completion_ids"]  # (B, T)
        return self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], completion_ids], dim=1),  # (B, P + T)
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion_ids.size(1),
            **{key: inputs.get(key) for key in _MULTIMODAL_KEYS},
            **options,
        )

    def _arranged(self, micro_batches: list[Batch]) -> list[list[Batch]]:
        """The passes of each of TRL's micro-batches, which are those of one generation and one rank."""
        batches = [batch | self._row_weights(batch) for batch in micro_batches]
        if "num_images" in batches[0] or not (self._arranges or self._skips):
            return [[batch] for batch in batches]
        size = self._window() if self._arranges else 1
        windows = [_joined(batches[i : i + size]) for i in range(0, len(batches), size)]
        kept = [self._rows_with_signal(window) for window in windows]
        plans = [self._plan(window, rows, size) for window, rows in zip(windows, kept, strict=True)]
        least = size if self.accelerator.distributed_type == DistributedType.DEEPSPEED else 1  # a backward at each step
        counts = torch.tensor([max(least, len(plan)) for plan in plans], device=self.accelerator.device)
        counts = self.accelerator.gather(counts).view(-1, len(plans)).amax(0).tolist()  # FSDP runs in step
        self._metrics["train"]["gbpo/rows_run"].append(self._share_of_rows(kept, windows))
        passes = []
        for window, plan, count in zip(windows, plans, counts, strict=True):
            run = [_taken(window, rows, self._trims) for rows in as_many(plan, count)]
            run += [_idle(window, self._trims)] * (count - len(run))
            passes += [run[i * count // size : (i + 1) * count // size] for i in range(size)]
        return passes

    def _window(self) -> int:
        """Micro-batches that are certain to share an optimiser step."""
        return min(self.args.steps_per_generation, self.args.gradient_accumulation_steps) if self._aligned else 1

    def _rows_with_signal(self, window: Batch) -> list[int]:
        if not self._skips:
            return list(range(len(window["advantages"])))
        mask = window["completion_mask"] * window.get("tool_mask", 1)
        return ((window["advantages"] != 0) & mask.any(1)).nonzero().flatten().tolist()

    def _plan(self, window: Batch, rows: list[int], at_most: int) -> list[list[int]]:
        if not rows or not self._arranges:
            return [rows] if rows else []
        width = window["prompt_ids"].size(1) + window["completion_ids"].size(1)
        budget = self.args.max_tokens_per_micro_batch or self.args.per_device_train_batch_size * width
        prompts, completions = (
            window[f"{part}_mask"][rows].sum(1).numpy(force=True) for part in ("prompt", "completion")
        )
        prompt_of = self._prompt_of(window, rows, prompts, completions)
        passes = split(Rows(prompts, completions, self._packs, prompt_of), budget, at_most)
        return [[rows[i] for i in chosen] for chosen in passes]

    def _prompt_of(
        self, window: Batch, rows: list[int], prompts: np.ndarray, completions: np.ndarray
    ) -> np.ndarray | None:
        """Which prompt each row has, where it would pay to run each of them once; else None."""
        if not self._shares_in_passes:
            return None
        different, prompt_of = sharing.distinct(window["prompt_ids"][rows], window["prompt_mask"][rows].bool())
        shared = int((different >= 0).sum()) + sharing.cost(0, prompts, 1, completions).sum()
        return prompt_of.numpy(force=True) if sharing.is_cheaper(shared, (prompts + completions).sum()) else None

    def _share_of_rows(self, kept: list[list[int]], windows: list[Batch]) -> float:
        sums = [float(sum(map(len, kept))), float(sum(len(window["advantages"]) for window in windows))]
        run, rows = self.accelerator.reduce(torch.tensor(sums, device=self.accelerator.device), "sum").tolist()
        return run / rows

    def compute_loss(self, model, inputs, *args, **kwargs):
        """TRL's on the last pass of a micro-batch; the gradients of those before it are added on the way."""
        passes = [inputs] if isinstance(inputs, dict) else inputs
        if not passes:  # another micro-batch of the step runs these rows
            return torch.zeros((), device=self.accelerator.device, requires_grad=True)
        others = torch.zeros((), device=self.accelerator.device)
        options = {"scale_wrt_gas": False} if self.accelerator.distributed_type == DistributedType.DEEPSPEED else {}
        for one in passes[:-1]:
            with self._accumulating(model):
                loss = super().compute_loss(model, one, *args, **kwargs)
                self.accelerator.backward(loss, **options)
            others += loss.detach()
        return super().compute_loss(model, passes[-1], *args, **kwargs) + others

    @contextmanager
    def _accumulating(self, model) -> Iterator[None]:
        """Inside, gradients stay on their rank, as in every micro-batch but the last of an optimiser step."""
        if not self.accelerator.sync_gradients:
            yield
            return
        context: Any = nullcontext()
        if self.is_distributed_loading_by_transformers:
            context = self._defer_fsdp_gradient_reduction()
        elif self.accelerator.distributed_type != DistributedType.DEEPSPEED:
            context = self.accelerator.no_sync(model)
        self.accelerator.gradient_state._set_sync_gradients(False)
        try:
            with context:
                yield
        finally:
            self.accelerator.gradient_state._set_sync_gradients(True)


def _joined(batches: list[Batch]) -> Batch:
    """Micro-batches of one generation as one; what is no tensor of rows is the same in all of them."""
    return {
        name: torch.cat([batch[name] for batch in batches]) if isinstance(value, torch.Tensor) and value.ndim else value
        for name, value in batches[0].items()
    }


def _taken(batch: Batch, rows: list[int], trim: bool) -> Batch:
    """Some rows of a batch, where trimmed as wide as their longest completion."""
    available = batch["completion_ids"].size(1)
    width = max(1, int(batch["completion_mask"][rows].sum(1).amax())) if trim else available

    def take(name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.ndim:
            return value
        per_token = value.ndim == 2 and value.size(1) == available and name not in _PROMPT
        return value[rows, :width] if per_token else value[rows]

    return {name: take(name, value) for name, value in batch.items()}


def _idle(batch: Batch, trim: bool) -> Batch:
    """The shortest row of a batch, of which no token counts."""
    lengths = batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1)  # (B,)
    row = _taken(batch, [int(lengths.argmin())], trim)
    return row | {"tool_mask": torch.zeros_like(row["completion_mask"])}
