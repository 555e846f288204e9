"""DAPO's dynamic sampling (arXiv 2503.14476): groups without signal are replaced by groups of other prompts."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from datasets import Dataset
from torch.nn.functional import pad

logger = get_logger(__name__)

Batch = dict[str, Any]

_MOST_ROUNDS = 10
_LEFT_PADDED = ("prompt_ids", "prompt_mask")


class Resampling:
    """Replaces the groups of a generation that have no signal, which are those whose advantages are all equal.

    In each round it draws as many prompts from the training set as are likely to replace all groups without signal, but
    at most one generation batch. There are at most ten rounds. Groups that could not be replaced stay.

    Args:
        dataset: Training set, from which prompts are drawn.
        accelerator: The accelerator of the trainer.
        num_generations: Completions of a group.
        pad_token_id: Token id for padding.
        seed: Seed of the run.
        choose: Draws the indices of a number of prompts. By default any prompt of the training set is as likely.

    Raises:
        ValueError: Prompts cannot be drawn by index, or the data set has images.
    """

    def __init__(
        self,
        dataset: Any,
        accelerator: Accelerator,
        num_generations: int,
        pad_token_id: int,
        seed: int,
        choose: Callable[[random.Random, int], list[int]] | None = None,
    ):
        _check_prompts(dataset)
        self._choose = choose or (lambda draw, count: draw.sample(range(len(dataset)), count))
        self._dataset, self._accelerator = dataset, accelerator
        self._group, self._pad, self._seed = num_generations, pad_token_id, seed
        self._gave_up = False  # the warning is given only once

    def fill(
        self,
        batch: Batch,
        advantages: torch.Tensor,
        score: Callable[[list[dict[str, Any]]], Batch],
        step: int,
        log: Callable[[str, float], None],
    ) -> Batch:
        """The rows of this rank after resampling.

        Args:
            batch: One scored generation of this rank.
            advantages: Advantages of all ranks, (B_global,). A group may span ranks.
            score: Generates and scores completions of rows of the data set.
            step: Number of the micro-batch. It seeds the choice of prompts.
            log: Called with the name and the value of each metric.
        """
        silent = self._silent_groups(advantages)
        groups = len(advantages) // self._group
        drawn, with_signal, rounds = groups, groups - len(silent), 0
        whole = self._of_all_ranks(batch) if silent else {}
        while silent and rounds < _MOST_ROUNDS:
            rounds += 1
            count = min(groups, self._even(math.ceil(len(silent) * drawn / max(with_signal, 1))))
            more = self._of_all_ranks(score(self.further_prompts(count, step, rounds)))
            found = sorted(set(range(count)) - set(self._silent_groups(more["advantages"])))
            drawn, with_signal = drawn + count, with_signal + len(found)
            whole = self._with_groups(whole, silent, more, found)
            silent = silent[len(found) :]
        if silent and not self._gave_up:
            self._gave_up = True
            logger.warning(
                f"{len(silent)} of {groups} groups have no signal after {rounds} rounds of resampling, which cost "
                f"{drawn - groups} further groups: the prompts are too easy or too hard for this model, or the reward "
                "is wrong. The metric gbpo/groups_without_signal shows this number for later steps."
            )
        log("gbpo/resampled_groups", float(drawn - groups))
        log("gbpo/resampling_rounds", float(rounds))
        log("gbpo/groups_without_signal", float(len(silent)))
        if not rounds:
            return batch
        rows = len(batch["advantages"])
        first = self._accelerator.process_index * rows
        return {
            name: value[first : first + rows].to(self._accelerator.device) if value.ndim else value
            for name, value in whole.items()
        }

    def further_prompts(self, count: int, step: int, round_number: int) -> list[dict[str, Any]]:
        """Draw the prompts of `count` groups from the training set, and return the rows of this rank."""
        draw = random.Random(f"{self._seed} {step} {round_number}")
        chosen = self._choose(draw, count)
        rows = [index for index in chosen for _ in range(self._group)]
        share = len(rows) // self._accelerator.num_processes
        first = self._accelerator.process_index * share
        return [dict(self._dataset[index]) for index in rows[first : first + share]]

    def _silent_groups(self, advantages: torch.Tensor) -> list[int]:
        groups = advantages.view(-1, self._group)
        return (groups.amax(1) == groups.amin(1)).nonzero().flatten().tolist()

    def _even(self, groups: int) -> int:
        """Round a number of groups up until the completions divide evenly among the ranks."""
        ranks = self._accelerator.num_processes
        multiple = ranks // math.gcd(ranks, self._group)
        return -(-groups // multiple) * multiple

    def _of_all_ranks(self, batch: Batch) -> Batch:
        """The rows of all ranks, on the CPU."""
        local = {name: value.cpu() for name, value in batch.items()}
        return _stacked(gather_object([local]), self._pad)

    def _with_groups(self, batch: Batch, slots: Sequence[int], more: Batch, found: Sequence[int]) -> Batch:
        """A copy of `batch` in which the groups `found` of `more` replace the first of the groups at `slots`."""
        both = _stacked([batch, more], self._pad)
        groups = torch.arange(len(both["advantages"])).view(-1, self._group)
        kept = len(batch["advantages"]) // self._group
        for slot, group in zip(slots, found, strict=False):
            groups[slot] = groups[kept + group]
        rows = groups[:kept].flatten()
        taken = {name: value[rows] for name, value in both.items() if value.ndim}
        mask = taken["completion_mask"] * taken.get("tool_mask", 1)
        return taken | {"num_items_in_batch": mask.sum().to(self._accelerator.device)}


def _stacked(batches: Sequence[Mapping[str, Any]], pad_token_id: int) -> Batch:
    """Concatenate the rows of several batches, padded to one width. Scalars come from the first batch."""

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
    """Raise `ValueError` if prompts cannot be drawn from the training set by index, or if it has images."""
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"resample_zero_signal_groups draws prompts by their index, which a {type(dataset).__name__} does not "
            "have. Use a datasets.Dataset, or remove the option."
        )
    if images := {"image", "images"} & set(dataset.column_names):
        raise ValueError(
            f"resample_zero_signal_groups cannot resample images, but the data set has the column {images.pop()!r}. "
            "Remove the option or the column."
        )
