"""Sampling and grading in threads, with a client that answers from memory."""

import asyncio
import random
import threading
from types import SimpleNamespace

import pytest

from gbpo.trainer.sampling.background import BackgroundRewards, BackgroundSampler, groups_of, in_background
from rewards import get_reward

OPTIONS = {"temperature": 1.0, "logprobs": 0, "max_tokens": 40, "generation_kwargs": {"stop": ["x"]}}


class Client:
    """Completion i of a request is [seed + i, number of tokens]; `held` prompts wait for their event."""

    def __init__(self):
        self.asked, self.held, self.error = [], {}, None

    def ask(self, prompt, seed, *, n, max_tokens, **options):
        if event := self.held.get(tuple(prompt)):
            assert event.wait(20)
        if self.error:
            raise self.error
        self.asked.append((tuple(prompt), n, seed, options))
        ids = [[seed + i, max_tokens] for i in range(n)]
        return {"completion_ids": ids, "logprobs": [[[-0.5, -0.1], [None]] for _ in ids]}

    def was_gone(self):
        return False


def make_sampler(client, group_size=2, rank=0):
    return BackgroundSampler(client, OPTIONS, group_size, rank, tokenizer=None)


def seeds(count):
    stream = random.Random(3)
    return [stream.getrandbits(31) for _ in range(count)]


def test_each_group_is_one_request_and_the_completions_keep_their_order():
    client, arrived = Client(), []
    client.held[(5,)] = threading.Event()
    prompts = [[5], [5], [6], [6]]
    future = make_sampler(client).sample(prompts, random.Random(3), lambda rows, ids: arrived.append((rows, ids)))
    while len(arrived) < 1:
        assert not future.done()
    client.held[(5,)].set()
    first, second = seeds(2)
    found = future.result(20)
    assert found.ids == [[first, 40], [first + 1, 40], [second, 40], [second + 1, 40]]
    assert found.logps == [[-0.5, None]] * 4, "the log-prob of the sampled token comes first"
    assert [rows for rows, _ in arrived] == [range(2, 4), range(2)]
    assert arrived[1][1] == found.ids[:2]
    options = {"temperature": 1.0, "logprobs": 0, "generation_kwargs": {"stop": ["x"]}}
    assert sorted(client.asked) == sorted([((5,), 2, first, options), ((6,), 2, second, options)])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_seeds_do_not_depend_on_the_ranks(ranks):
    """12 completions in groups of 3. With 4 ranks, each has one group; with 2 ranks, a group of 6 rows spans both."""
    prompts = [[i] for i in (5, 6, 7, 8) for _ in range(3)]
    found = []
    for rank in range(ranks):
        share = len(prompts) // ranks
        own = prompts[rank * share : (rank + 1) * share]
        for group_size in (3,):
            groups = groups_of(own, rank * share, group_size, random.Random(3))
            found += [(tuple(g.prompt), g.seed + i) for g in groups for i in range(len(g.rows))]
    assert found == [
        ((prompt,), seed + i) for prompt, seed in zip((5, 6, 7, 8), seeds(4), strict=True) for i in range(3)
    ]


def test_a_group_that_spans_ranks_continues_its_seeds():
    first, second = groups_of([[5]] * 4, 0, 8, random.Random(3)), groups_of([[5]] * 4, 4, 8, random.Random(3))
    assert [group.seed for group in first + second] == [seeds(1)[0], seeds(1)[0] + 4]
    assert [group.rows for group in first + second] == [range(4), range(4)]


def test_the_probe_asks_for_few_tokens_of_one_prompt():
    client = Client()
    found = make_sampler(client).probe([[5], [5], [6], [6]], random.Random(3))
    assert found.ids == [[seeds(1)[0], 32], [seeds(1)[0] + 1, 32]] and len(client.asked) == 1


def test_a_failed_request_is_the_error_of_the_generation():
    client = Client()
    client.error = OSError("gone")
    future = make_sampler(client).sample([[5], [5]], random.Random(3), None)
    with pytest.raises(OSError, match="gone"):
        future.result(20)


# --- rewards


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)


@pytest.fixture
def grade(loop):
    """`grade(*functions)`: their rewards of 4 rows that arrive as 2 + 2, and what they log."""

    def run(*functions, rows=4, order=(1, 0)):
        data = [{"prompt": f"p{i // 2}", "solution": i} for i in range(rows)]
        rewards = BackgroundRewards(
            functions,
            data,
            lambda numbers, ids: [f"{n}:{some}" for n, some in zip(numbers, ids, strict=True)],
            loop,
            SimpleNamespace(global_step=7),
        )
        for group in order:
            rewards.add(range(2 * group, 2 * group + 2), [[10 * row] for row in (2 * group, 2 * group + 1)])
        extras, metrics, found = {}, {}, []
        for function in rewards.functions(functions):
            found.append(
                function(completions=[None] * rows, log_extra=extras.__setitem__, log_metric=metrics.__setitem__)
            )
        return found, extras, metrics

    return run


def test_rewards_get_what_trl_gives_them(grade):
    seen = []

    def reward(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric):
        seen.append((prompts, completions, completion_ids, solution, trainer_state.global_step))
        log_extra("half", [value / 2 for value in solution])
        log_metric("mean", sum(solution) / len(solution))
        return [float(value) if value else None for value in solution]

    found, extras, metrics = grade(reward)
    assert found == [[None, 1.0, 2.0, 3.0]]
    assert extras == {"half": [0.0, 0.5, 1.0, 1.5]} and metrics == {"mean": 1.5}
    calls = [(row, *rest) for *columns, step in seen for row, *rest in zip(*columns, [step] * 4, strict=False)]
    assert sorted(calls) == [(f"p{i // 2}", f"{i}:[{10 * i}]", [10 * i], i, 7) for i in range(4)]


def test_asynchronous_and_synchronous_rewards(grade):
    async def later(solution, **kwargs):
        await asyncio.sleep(0.01)
        return [2.0 * value for value in solution]

    assert grade(later, lambda solution, **_: list(map(float, solution)))[0] == [
        [0.0, 2.0, 4.0, 6.0],
        [0.0, 1.0, 2.0, 3.0],
    ]


def test_rewards_that_compare_ranks_or_vote_are_left_to_the_trainer(grade):
    class Votes:
        votes = 8

        def __call__(self, completions, **kwargs):
            return ["left"]

    assert [in_background(get_reward(name)) for name in ("math", "code", "format", "majority_vote", "length")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert grade(Votes())[0] == [["left"]]


def test_an_error_of_a_reward_is_raised_when_its_rewards_are_needed(grade):
    def fails(**kwargs):
        raise KeyError("no column")

    with pytest.raises(KeyError, match="no column"):
        grade(fails)
    with pytest.raises(ValueError, match="'too_few' returned 1 rewards for"):
        grade(too_few)


def too_few(completions, **kwargs):
    return [1.0]
