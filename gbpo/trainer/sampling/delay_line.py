"""`DelayLine`: generations that are sampled before the optimiser steps that use them (`generate_ahead`)."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

import torch
from trl.trainer.utils import pad


class Completions(NamedTuple):
    """Sampled completions, one per prompt.

    Args:
        ids: Token ids of each completion.
        logps: Log-probs of these tokens under the policy that sampled them. None for a token that could not be scored.
    """

    ids: list[list[int]]
    logps: list[list[float | None]]


class Rewards(Protocol):
    """Rewards of a generation that are computed in the background."""

    def functions(self, functions: Sequence[Any]) -> list[Any]:
        """A function in place of each reward function. It returns the stored rewards if there are any."""


def done(completions: Completions) -> "Future[Completions]":
    """A future whose result is available."""
    future: Future[Completions] = Future()
    future.set_result(completions)
    return future


def as_batch(
    prompt_ids: Sequence[Sequence[int]], completions: Completions, pad_token_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Completions as TRL's tensors: prompts (B, P) padded left, completions and their log-probs (B, T) padded right."""
    batch = {}
    for name, rows, side in (("prompt", prompt_ids, "left"), ("completion", completions.ids, "right")):
        tensors = [torch.tensor(row) for row in rows]
        batch[f"{name}_ids"] = pad(tensors, padding_value=pad_token_id, padding_side=side)
        batch[f"{name}_mask"] = pad([torch.ones_like(row) for row in tensors], padding_value=0, padding_side=side)
    if completions.logps:
        logps = [torch.tensor([math.nan if some is None else some for some in row]) for row in completions.logps]
        batch["sampling_per_token_logps"] = pad(logps, padding_value=0.0, padding_side="right")
    return {name: tensor.to(device) for name, tensor in batch.items()}


@dataclass
class Generation:
    """The completions of this rank for one generation.

    Args:
        number: 0 for the first generation of a run.
        version: Optimiser steps that the weights had taken that sampled the completions.
        prompt_ids: Token ids of the prompts, one per completion.
        rounds: The completions to train on, then those of each further round of votes.
        rewards: Rewards that are computed in the background, if any are.
    """

    number: int
    version: int
    prompt_ids: list[list[int]]
    rounds: "list[Future[Completions]]"
    rewards: Rewards | None = None

    def next_round(self, prompt_ids: Sequence[Sequence[int]]) -> Completions:
        """Remove the completions of the next round and return them. This waits until they are sampled.

        Raises:
            RuntimeError: The completions were sampled for other prompts.
        """
        if list(map(list, prompt_ids)) != self.prompt_ids:
            raise RuntimeError(
                f"Generation {self.number} was sampled for other prompts than it is used for. The order of the prompts "
                "has changed since, for example because the data set or the seed differs from the checkpoint's run."
            )
        return self.rounds.pop(0).result()


@dataclass
class DelayLine:
    """Holds the generations that are sampled and not yet used.

    Generation n is sampled with the weights after the training on generation n - length - 1. So when the training on
    generation n begins, generation n + length is sampled.

    Args:
        length: Number of generations between sampling and use.
    """

    length: int
    _line: deque[Generation] = field(default_factory=deque, repr=False)

    def missing(self, number: int, last: int) -> range:
        """Numbers of the generations to sample when the training on generation `number` begins.

        Args:
            number: The generation that is used next.
            last: The last generation of the run.
        """
        first = self._line[-1].number + 1 if self._line else number
        return range(first, min(number + self.length, last) + 1)

    def append(self, generation: Generation) -> None:
        """Add the next generation."""
        self._line.append(generation)

    def take(self, number: int) -> Generation:
        """Remove generation `number`, and return it."""
        generation = self._line.popleft()
        assert generation.number == number
        return generation

    def settle(self) -> None:
        """Wait until all completions are sampled. Afterwards the weights of the engine may change."""
        for generation in self._line:
            for completions in generation.rounds:
                completions.result()

    def state(self) -> list[dict[str, Any]]:
        """The line as plain data for a checkpoint. This waits until all completions are sampled."""
        fields = ("number", "version", "prompt_ids")
        return [
            {name: getattr(one, name) for name in fields} | {"rounds": [tuple(some.result()) for some in one.rounds]}
            for one in self._line
        ]

    def load(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Restore the line from the data of a checkpoint."""
        self._line = deque(
            Generation(**{**one, "rounds": [done(Completions(*some)) for some in one["rounds"]]}) for one in state
        )


@dataclass
class PromptOrder:
    """The rows of each generation, in the order in which the data loader will give them.

    Args:
        dataset: The training set.
        sampler: A sampler of its own, equal to the data loader's. One pass over it is an epoch.
        batch: Completions of a generation over all ranks.
        repeats: How often the sampler repeats each generation.
        mine: The rows of this rank in a generation.
    """

    dataset: Any
    sampler: Iterable[int]
    batch: int
    repeats: int
    mine: slice
    _generations: Iterator[list[int]] = field(init=False, repr=False)
    _next: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._generations = self._indices()

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The rows of this rank for generation `number`. Numbers must not decrease from call to call."""
        if number < self._next:
            raise ValueError(f"The prompts of generation {number} were read already; the next is {self._next}.")
        indices = next(islice(self._generations, number - self._next, None))
        self._next = number + 1
        return [dict(self.dataset[index]) for index in indices[self.mine]]

    def _indices(self) -> Iterator[list[int]]:
        for _ in count():
            epoch = iter(self.sampler)
            while indices := list(islice(epoch, self.batch * self.repeats)):
                yield indices[: self.batch]
