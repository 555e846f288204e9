"""`ResamplingGRPOTrainer`: TRL's GRPOTrainer that can put groups of other prompts in place of those without signal."""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from datasets import Dataset
from torch.nn.functional import pad
from trl import GRPOTrainer

from ..config import BaseConfig
from .unrecorded import unrecorded

logger = get_logger(__name__)

Batch = dict[str, Any]

_MOST_ROUNDS = 10
_LEFT_PADDED = ("prompt_ids", "prompt_mask")


class ResamplingGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with the dynamic sampling of DAPO (arXiv 2503.14476), under `resample_zero_signal_groups`.

    A group whose completions all have one advantage teaches nothing. While a generation holds such groups, further
    prompts are drawn from the training set, with `seed`, and the groups with a signal take their places: as many
    prompts as are likely to fill them, at most a whole generation batch at a time, at most ten times. What could not be
    filled stays. Metrics and logs are those of the first draw, so that `reward` remains the policy's mean reward;
    the cost is logged as `gbpo/resampled_groups` and `gbpo/resampling_rounds`, in `num_tokens` and in `time/*`, and
    what is left as `gbpo/groups_without_signal`. Under `scale_rewards: batch` the deviation is that of each draw.
    Evaluation is untouched.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._resamples = isinstance(self.args, BaseConfig) and self.args.resample_zero_signal_groups
        self._gave_up = False  # said once
        if self._resamples:
            _check_prompts(self.train_dataset)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        batch = self._scored_completions(inputs)
        return self._resampled(batch) if self._resamples and self.model.training else batch

    def _scored_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        """One generation, scored; trainers that add to a batch do so here."""
        return super()._generate_and_score_completions(inputs)

    def _resampled(self, batch: Batch) -> Batch:
        """The rows of this rank, with a signal where one was found."""
        advantages = self.accelerator.gather(batch["advantages"])  # (B_global,); groups may span ranks
        silent = self._silent_groups(advantages)
        groups = len(advantages) // self.num_generations
        drawn, with_signal, rounds = groups, groups - len(silent), 0
        whole = self._of_all_ranks(batch) if silent else {}
        while silent and rounds < _MOST_ROUNDS:
            rounds += 1
            count = min(groups, self._even(math.ceil(len(silent) * drawn / max(with_signal, 1))))
            with unrecorded(self):
                more = self._of_all_ranks(self._scored_completions(self._further_prompts(count, rounds)))
            found = sorted(set(range(count)) - set(self._silent_groups(more["advantages"])))
            drawn, with_signal = drawn + count, with_signal + len(found)
            whole = self._with_groups(whole, silent, more, found)
            silent = silent[len(found) :]
        if silent and not self._gave_up:
            self._gave_up = True
            logger.warning(
                f"{len(silent)} of {groups} groups are without signal after {rounds} rounds of resampling, which cost "
                f"{drawn - groups} groups: the prompts are too easy or too hard for this model, or the reward is at "
                "fault. See gbpo/groups_without_signal for the steps to come."
            )
        metrics = self._metrics["train"]
        metrics["gbpo/resampled_groups"].append(float(drawn - groups))
        metrics["gbpo/resampling_rounds"].append(float(rounds))
        metrics["gbpo/groups_without_signal"].append(float(len(silent)))
        if not rounds:
            return batch
        rows = len(batch["advantages"])
        first = self.accelerator.process_index * rows
        return {
            name: value[first : first + rows].to(self.accelerator.device) if value.ndim else value
            for name, value in whole.items()
        }

    def _silent_groups(self, advantages: torch.Tensor) -> list[int]:
        groups = advantages.view(-1, self.num_generations)
        return (groups.amax(1) == groups.amin(1)).nonzero().flatten().tolist()

    def _even(self, groups: int) -> int:
        """At least so many groups, whose completions fall to all ranks alike."""
        ranks = self.accelerator.num_processes
        multiple = ranks // math.gcd(ranks, self.num_generations)
        return -(-groups // multiple) * multiple

    def _further_prompts(self, count: int, round_number: int) -> list[dict[str, Any]]:
        """The rows of this rank of `count` groups of prompts drawn from the training set."""
        draw = random.Random(f"{self.args.seed} {self._step} {round_number}")
        chosen = draw.sample(range(len(self.train_dataset)), count)
        rows = [index for index in chosen for _ in range(self.num_generations)]
        share = len(rows) // self.accelerator.num_processes
        first = self.accelerator.process_index * share
        return [dict(self.train_dataset[index]) for index in rows[first : first + share]]

    def _of_all_ranks(self, batch: Batch) -> Batch:
        """The rows of all ranks, on the CPU."""
        local = {name: value.cpu() for name, value in batch.items()}
        return _joined(gather_object([local]), self._tokenizer.pad_token_id)

    def _with_groups(self, batch: Batch, slots: Sequence[int], more: Batch, found: Sequence[int]) -> Batch:
        """The batch with the groups `found` of another in as many of its `slots`."""
        joined = _joined([batch, more], self._tokenizer.pad_token_id)
        groups = torch.arange(len(joined["advantages"])).view(-1, self.num_generations)
        kept = len(batch["advantages"]) // self.num_generations
        for slot, group in zip(slots, found, strict=False):
            groups[slot] = groups[kept + group]
        rows = groups[:kept].flatten()
        taken = {name: value[rows] for name, value in joined.items() if value.ndim}
        mask = taken["completion_mask"] * taken.get("tool_mask", 1)
        return taken | {"num_items_in_batch": mask.sum().to(self.accelerator.device)}


def _joined(batches: Sequence[Batch], pad_token_id: int) -> Batch:
    """Rows of several batches below each other, padded alike; scalars are those of the first."""

    def padded(name: str, value: torch.Tensor) -> torch.Tensor:
        if value.ndim < 2:
            return value
        missing = max(batch[name].size(1) for batch in batches) - value.size(1)
        fill = pad_token_id if name.endswith("_ids") else 0
        return pad(value, (missing, 0) if name in _LEFT_PADDED else (0, missing), value=fill)

    return {
        name: torch.cat([padded(name, batch[name]) for batch in batches]) if first.ndim else first
        for name, first in batches[0].items()
    }


def _check_prompts(dataset: Any) -> None:
    """Raise `ValueError` for a training set whose prompts cannot be drawn once more."""
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"resample_zero_signal_groups draws prompts by their number, and a {type(dataset).__name__} has none. Give "
            "a datasets.Dataset, or leave the option out."
        )
    if images := {"image", "images"} & set(dataset.column_names):
        raise ValueError(
            f"resample_zero_signal_groups takes rows of tokens, but the data set has {images.pop()!r}. Leave one out."
        )
