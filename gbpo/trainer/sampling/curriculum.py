"""`Curriculum`: prompts that the model solves sometimes are preferred (`difficulty`)."""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from ...shared.stopping import TrainingStopped
from ..config import Band

_NEWEST = 0.5  # weight of the newest group in the running mean of a prompt
_ROUNDING = 1e-6  # of rewards in float32


def solve_rates(rewards: torch.Tensor, group_size: int, names: Sequence[str]) -> torch.Tensor:
    """The solve rate of each prompt of a generation: the mean of the first reward that graded the prompt.

    With rewards of 0 and 1 it is the share of right answers. With graded rewards it is their mean. Later rewards, such
    as penalties of the length, do not count.

    Args:
        rewards: Rewards of all ranks, (B_global, number of reward functions), NaN for completions without a grade.
        group_size: Completions of a prompt.
        names: Names of the reward functions.

    Returns:
        Solve rates in [0, 1], (B_global / group_size,), float64. NaN for a prompt that no reward graded.

    Raises:
        TrainingStopped: A reward that counts is outside [0, 1].
    """
    groups = rewards.double().cpu().view(-1, group_size, rewards.size(1))
    first = (~groups.isnan().all(1)).int().argmax(1)  # (P,): the first reward that graded the prompt
    counted = groups[torch.arange(len(groups)), :, first]  # (P, G)
    outside = (counted < -_ROUNDING) | (counted > 1 + _ROUNDING)
    if outside.any():
        prompt, completion = outside.nonzero()[0].tolist()
        raise TrainingStopped(
            f"difficulty reads the solve rate from the reward {names[int(first[prompt])]!r}, which is "
            f"{counted[prompt, completion].item():g} for a completion. A solve rate needs rewards in [0, 1]. Put a "
            "reward that grades the answer in [0, 1] first in reward_funcs, or remove difficulty."
        )
    return counted.nanmean(1).clamp(0, 1)


class Curriculum:
    """Chooses the prompts of each generation by their solve rates.

    The first pass over the training set has the order of the sampler. In later passes, the prompts whose rate is
    outside the band are left out, and a fixed share of each generation is drawn from them. When a pass has too few
    prompts left, the next one begins within the generation. If the whole training set has too few, prompts outside the
    band fill the generation. If no prompt is outside the band, the prompts are exactly those of the sampler.

    The rate of a prompt is a running mean in which the newest group weighs one half. All ranks get the same rewards, so
    they make the same choice.

    Args:
        dataset: The training set, with rows that are read by index.
        sampler: Each iteration is one pass over the training set, without repeats.
        band: Which prompts are preferred.
        count: Prompts of a generation over all ranks.
        group_size: Completions of a prompt.
        mine: The rows of this rank in a generation.
        names: Names of the reward functions.
        seed: Seed of the run.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Iterable[int],
        band: Band,
        *,
        count: int,
        group_size: int,
        mine: slice,
        names: Sequence[str],
        seed: int,
    ):
        self._dataset, self._sampler, self._band = dataset, sampler, band
        self._count, self._group_size, self._mine = count, group_size, mine
        self._names, self._seed = names, seed
        self.skipped: set[int] = set()  # places of the rewards that do not say whether an answer is right
        self.rates = torch.full((len(dataset),), torch.nan, dtype=torch.float64)  # NaN: no completion was graded yet
        self._passes = 0
        self._left: list[int] = []  # prompts of this pass that were not used yet
        self._chosen: dict[int, list[int]] = {}  # by generation: the last one that began, and those to come
        self._asked: list[int] = []  # the prompts whose rewards come next

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The rows of this rank for generation `number`. The prompts are chosen at the first call, by today's rates."""
        if number not in self._chosen:
            self._chosen[number] = self._choose(number)
        indices = [index for index in self._chosen[number] for _ in range(self._group_size)]
        return [dict(self._dataset[index]) for index in indices[self._mine]]

    def begin(self, number: int) -> list[dict[str, Any]]:
        """The rows of this rank for generation `number`, whose rewards come next."""
        self._chosen = {later: prompts for later, prompts in self._chosen.items() if later >= number}
        rows = self.rows(number)
        self._asked = self._chosen[number]
        return rows

    def further(self, draw: random.Random, count: int) -> list[int]:
        """Draw prompts beside those of the generation, whose rewards come next. Prompts inside the band come first."""
        outside = self._outside()
        preferred = (~outside).nonzero().flatten().tolist()
        chosen = draw.sample(preferred, min(count, len(preferred)))
        self._asked = chosen + draw.sample(outside.nonzero().flatten().tolist(), count - len(chosen))
        return self._asked

    def record(self, rewards: torch.Tensor) -> None:
        """Update the rates of the prompts that were given last.

        Args:
            rewards: Rewards of all ranks, (B_global, number of reward functions).
        """
        read = [place for place in range(rewards.size(1)) if place not in self.skipped]
        found = solve_rates(rewards[:, read], self._group_size, [self._names[place] for place in read])
        prompts = torch.tensor(self._asked)[~found.isnan()]
        newest, before = found[~found.isnan()], self.rates[prompts]
        self.rates[prompts] = torch.where(before.isnan(), newest, (1 - _NEWEST) * before + _NEWEST * newest)

    def metrics(self) -> dict[str, float]:
        """Shares of the training set below, inside and above the band and without a rate, and the mean rate."""
        seen = self.rates[~self.rates.isnan()]
        counts = {
            "below": (seen < self._band.low).sum(),
            "inside": ((seen >= self._band.low) & (seen <= self._band.high)).sum(),
            "above": (seen > self._band.high).sum(),
            "unseen": torch.tensor(len(self.rates) - len(seen)),
        }
        found = {f"gbpo/difficulty/{name}": value.item() / len(self.rates) for name, value in counts.items()}
        return found | ({"gbpo/difficulty/solve_rate": seen.mean().item()} if len(seen) else {})

    def state(self) -> dict[str, Any]:
        """The rates and the choices as plain data for a checkpoint."""
        return {
            "prompts": self._digest,
            "rates": self.rates,
            "passes": self._passes,
            "left": torch.tensor(self._left, dtype=torch.long),
            "chosen": {number: list(prompts) for number, prompts in self._chosen.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the data of a checkpoint.

        Raises:
            TrainingStopped: The checkpoint has the rates of other prompts.
        """
        if state["prompts"] != self._digest:
            raise TrainingStopped(
                "The checkpoint has solve rates of other prompts than those of this run, so difficulty would choose by "
                "the wrong rates. Resume with the data set and the form of the prompts of the checkpoint's run, or "
                "start a new run from the weights of the checkpoint."
            )
        self.rates, self._left = state["rates"].cpu(), state["left"].tolist()
        self._chosen = dict(state["chosen"])
        self._passes = state["passes"]
        for _ in range(self._passes):  # the next pass then has the order that it would have had
            next(iter(self._sampler), None)

    def _choose(self, number: int) -> list[int]:
        draw = random.Random(f"{self._seed} {number}")
        if not self._left:
            self._begin_pass()
        outside = self._outside()
        # whole numbers whose mean is the share; the first pass shows each prompt once
        again = self._revisits(number + 1) - self._revisits(number) if self._passes > 1 else 0
        pool = outside.nonzero().flatten().tolist()
        revisited = draw.sample(pool, min(again, len(pool)))
        missing = self._count - len(revisited)
        chosen = self._preferred(outside)[:missing]
        if len(chosen) < missing:
            self._begin_pass()
            chosen += [index for index in self._preferred(outside) if index not in chosen][: missing - len(chosen)]
        chosen += revisited
        chosen += draw.sample(sorted(set(pool) - set(revisited)), self._count - len(chosen))
        used = set(chosen)
        self._left = [index for index in self._left if index not in used]
        return chosen

    def _preferred(self, outside: torch.Tensor) -> list[int]:
        """The prompts of this pass that were not used yet and are not outside the band, in order."""
        is_outside = outside.tolist()
        return [index for index in self._left if not is_outside[index]]

    def _outside(self) -> torch.Tensor:
        """Which prompts have a rate outside the band, (N,). Prompts without a rate have none."""
        return (self.rates < self._band.low) | (self.rates > self._band.high)

    def _revisits(self, generations: int) -> int:
        """Prompts outside the band in this number of generations."""
        return math.floor(generations * self._count * self._band.revisit)

    def _begin_pass(self) -> None:
        self._left = list(self._sampler)
        self._passes += 1

    @cached_property
    def _digest(self) -> str:
        """A digest of the prompts in the order of the training set."""
        digest = hashlib.sha256()
        for row in self._dataset.select_columns("prompt"):
            digest.update(json.dumps(row["prompt"], default=str).encode())
        return digest.hexdigest()
