"""`BackgroundSampler` and `BackgroundRewards`: sampling from a vLLM server, and grading, while the trainer trains."""

import asyncio
import queue
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from torch import nn
from trl.chat_template_utils import parse_response
from trl.data_utils import is_conversational
from trl.trainer.utils import is_async_callable

from .delay_line import Completions
from .vllm_client import CONCURRENT_REQUESTS, SeededClient

_PROBE_TOKENS = 32


class Group(NamedTuple):
    """The completions of one prompt that this rank asks for in one request.

    Args:
        prompt: Token ids of the prompt.
        rows: Their numbers among the rows of this rank.
        seed: Seed of the first completion. vLLM gives each further completion the next seed.
    """

    prompt: list[int]
    rows: range
    seed: int


def groups_of(prompt_ids: Sequence[list[int]], first_row: int, group_size: int, stream: random.Random) -> list[Group]:
    """Split the rows of a rank into groups. The seed of a completion does not depend on the number of ranks.

    Args:
        prompt_ids: Token ids of the prompts of this rank, one per completion.
        first_row: Number of this rank's first row among the rows of all ranks.
        group_size: Completions of a prompt. A group may span ranks.
        stream: Random stream of the generation. One number is drawn for each prompt.

    >>> [group.rows for group in groups_of([[5], [5], [6]], 1, 3, random.Random(0))]
    [range(0, 2), range(2, 3)]
    """
    last_group = (first_row + len(prompt_ids) - 1) // group_size
    seeds = [stream.getrandbits(31) for _ in range(last_group + 1)]
    found = []
    for number, rows in groupby(range(len(prompt_ids)), key=lambda row: (first_row + row) // group_size):
        first, *others = rows
        seed = seeds[number] + (first_row + first) % group_size
        found.append(Group(prompt_ids[first], range(first, first + len(others) + 1), seed))
    return found


Arrived = Callable[[range, list[list[int]]], None]


class BackgroundSampler:
    """Asks a vLLM server for completions in threads. They are daemons, so an interrupted run does not wait for them.

    Args:
        client: A client of this rank.
        options: Sampling options, as TRL's client takes them, without `n`.
        group_size: Completions of a prompt. A group may span ranks.
        rank: Number of this rank.
        tokenizer: A tokenizer that only the background uses, since a tokenizer cannot work in two threads at once.
    """

    def __init__(self, client: SeededClient, options: Mapping[str, Any], group_size: int, rank: int, tokenizer: Any):
        self.client, self._options, self._group_size, self._rank = client, dict(options), group_size, rank
        self.tokenizer = tokenizer
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0

    def sample(
        self, prompt_ids: Sequence[list[int]], stream: random.Random, arrived: Arrived | None
    ) -> Future[Completions]:
        """Ask for one completion per prompt.

        Args:
            prompt_ids: Token ids of the prompts of this rank, one per completion.
            stream: Random stream of the generation.
            arrived: Called in a thread with the rows of each group that was sampled, and their token ids.

        Returns:
            The completions in the order of the rows. If a request fails, the future has its error.
        """
        groups = self._groups(prompt_ids, stream)
        while self._threads < min(len(groups), CONCURRENT_REQUESTS):
            self._threads += 1
            threading.Thread(target=self._work, name="sampling ahead", daemon=True).start()
        round_of_sampling = _Round(groups, arrived)
        for group in groups:
            self._jobs.put(partial(round_of_sampling.run, group, self._ask))
        return round_of_sampling.completions

    def _groups(self, prompt_ids: Sequence[list[int]], stream: random.Random) -> list[Group]:
        return groups_of(prompt_ids, self._rank * len(prompt_ids), self._group_size, stream)

    def _ask(self, group: Group, max_tokens: int | None = None) -> Completions:
        options = self._options if max_tokens is None else {**self._options, "max_tokens": max_tokens}
        answer = self.client.ask(group.prompt, group.seed, n=len(group.rows), **options)
        # each token comes with the log-probs of the most probable tokens; the sampled one is the first
        return Completions(answer["completion_ids"], [[top[0] for top in logps] for logps in answer["logprobs"]])

    def probe(self, prompt_ids: Sequence[list[int]], stream: random.Random) -> Completions:
        """Ask for the first tokens of the completions of the first prompt, and wait for them."""
        return self._ask(self._groups(prompt_ids, stream)[0], min(_PROBE_TOKENS, self._options["max_tokens"]))

    def was_gone(self) -> bool:
        """Whether a request had to be repeated since the last call of this method."""
        return self.client.was_gone()

    def _work(self) -> None:
        while True:
            self._jobs.get()()


class _Round:
    """Collects the completions of the groups of one round."""

    def __init__(self, groups: Sequence[Group], arrived: Arrived | None):
        rows = sum(len(group.rows) for group in groups)
        self._collected = Completions([[]] * rows, [[]] * rows)
        self._missing = len(groups)
        self._arrived, self._lock = arrived, threading.Lock()
        self.completions: Future[Completions] = Future()

    def run(self, group: Group, ask: Callable[[Group], Completions]) -> None:
        try:
            if self.completions.done():  # another request failed
                return
            found = ask(group)
            for row, ids, logps in zip(group.rows, *found, strict=True):
                self._collected.ids[row], self._collected.logps[row] = ids, logps
            if self._arrived is not None:
                self._arrived(group.rows, found.ids)
            with self._lock:
                self._missing -= 1
                if not self._missing and not self.completions.done():
                    self.completions.set_result(self._collected)
        except BaseException as error:
            with self._lock:
                if not self.completions.done():
                    self.completions.set_exception(error)


def decoded(
    tokenizer: Any, prompts: Sequence[Any], prompt_ids: Sequence[list[int]], numbers: Sequence[int], ids: Sequence[Any]
) -> list[Any]:
    """Completions as TRL's `_generate` passes them to reward functions: texts, or messages if the prompts are messages.

    Args:
        tokenizer: The tokenizer or processor.
        prompts: All prompts of this rank.
        prompt_ids: Their token ids.
        numbers: The prompts of the completions.
        ids: Token ids of the completions.
    """
    if not is_conversational({"prompt": prompts[0]}):
        return tokenizer.batch_decode(ids, skip_special_tokens=True)
    own = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
    if getattr(own, "response_template", None) is not None or getattr(own, "response_schema", None) is not None:
        return [
            [parse_response(own, some, prefix=prompt_ids[number])] for number, some in zip(numbers, ids, strict=True)
        ]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [[{"role": "assistant", "content": text}] for text in texts]


def in_background(function: Any) -> bool:
    """Whether a reward may be computed in a thread, for some completions of a generation at a time.

    The trainer itself computes a reward that is a model, that has `votes`, or whose attribute `in_background` is False.
    """
    votes = getattr(function, "votes", None) is not None
    return not isinstance(function, nn.Module) and not votes and getattr(function, "in_background", True)


class BackgroundRewards:
    """Computes the rewards of the completions that have arrived, in a thread, while others are being sampled.

    Each call of a reward function gets all completions that have arrived since the last call.

    Args:
        functions: The reward functions of the run; `in_background` tells which of them are called here.
        rows: The rows of the data set, one per completion.
        decode: Called with row numbers and token ids. Returns the completions as the reward functions get them.
        loop: The event loop in which asynchronous reward functions run; None if there are none.
        state: The state of the trainer, which the reward functions get.
    """

    def __init__(
        self,
        functions: Sequence[Any],
        rows: Sequence[Mapping[str, Any]],
        decode: Callable[[Sequence[int], list[list[int]]], list[Any]],
        loop: Any,
        state: Any,
    ):
        self._rows, self._decode, self._loop, self._state = rows, decode, loop, state
        self._results = {i: _Result(one, len(rows)) for i, one in enumerate(functions) if in_background(one)}
        self._arrived: queue.SimpleQueue[tuple[range, list[list[int]]]] = queue.SimpleQueue()
        self._finished: Future[None] = Future()
        threading.Thread(target=self._run, name="rewards ahead", daemon=True).start()

    def add(self, rows: range, ids: list[list[int]]) -> None:
        """Tell that these rows were sampled, with these token ids."""
        self._arrived.put((rows, ids))

    def functions(self, functions: Sequence[Any]) -> list[Any]:
        """These reward functions; those that were called here are replaced by their results. This waits for them."""
        self._finished.result()
        return [self._results[i].replay if i in self._results else function for i, function in enumerate(functions)]

    def _run(self) -> None:
        left = len(self._rows) if self._results else 0
        try:
            while left:
                arrived = [self._arrived.get()]
                while not self._arrived.empty():
                    arrived.append(self._arrived.get())
                numbers = [row for rows, _ in arrived for row in rows]
                self._compute(numbers, [ids for _, some in arrived for ids in some])
                left -= len(numbers)
            self._finished.set_result(None)
        except BaseException as error:
            self._finished.set_exception(error)

    def _compute(self, numbers: list[int], ids: list[list[int]]) -> None:
        rows = [self._rows[number] for number in numbers]
        columns = rows[0].keys() - {"prompt", "completion", "completion_ids"}
        arguments: dict[str, Any] = {name: [row[name] for row in rows] for name in columns}
        arguments |= {
            "prompts": [row["prompt"] for row in rows],
            "completions": self._decode(numbers, ids),
            "completion_ids": ids,
            "trainer_state": self._state,
        }
        started = [(result, result.start(numbers, arguments, self._loop)) for result in self._results.values()]
        for result, rewards in started:
            result.put(numbers, rewards.result() if isinstance(rewards, Future) else rewards)


@dataclass
class _Result:
    """What a reward function returned and logged for the rows of a generation."""

    function: Any
    rows: int
    rewards: list[float | None] = field(init=False)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # number of rows and value of each call

    def __post_init__(self) -> None:
        self.rewards = [None] * self.rows

    def start(self, numbers: list[int], arguments: Mapping[str, Any], loop: Any) -> Any:
        """Call the function for these rows. Returns the rewards, or their future if the function is asynchronous."""

        def log_extra(column: str, values: Iterable[Any]) -> None:
            for number, value in zip(numbers, values, strict=True):
                self.columns.setdefault(column, [None] * self.rows)[number] = value

        def log_metric(name: str, value: float) -> None:
            self.metrics.setdefault(name, []).append((len(numbers), value))

        outcome = self.function(**arguments, log_extra=log_extra, log_metric=log_metric)
        return asyncio.run_coroutine_threadsafe(outcome, loop) if is_async_callable(self.function) else outcome

    def put(self, numbers: list[int], rewards: Sequence[float | None]) -> None:
        if len(rewards) != len(numbers):
            raise ValueError(
                f"The reward function {getattr(self.function, '__name__', self.function)!r} returned {len(rewards)} "
                f"rewards for {len(numbers)} completions. It must return one per completion."
            )
        for number, reward in zip(numbers, rewards, strict=True):
            self.rewards[number] = reward

    def replay(
        self, *, log_extra: Callable[[str, list[Any]], None], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float | None]:
        """The rewards of all rows, as one call of the function. Metrics are averaged over the rows."""
        for column, values in self.columns.items():
            log_extra(column, values)
        for name, calls in self.metrics.items():
            log_metric(name, sum(rows * value for rows, value in calls) / sum(rows for rows, _ in calls))
        return self.rewards
