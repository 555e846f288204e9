"""The delay line without a trainer: which generations are due, what is kept, and the order of the prompts."""

from concurrent.futures import Future

import pytest
import torch
from trl.trainer.utils import RepeatSampler

from gbpo.trainer.sampling.delay_line import Completions, DelayLine, Generation, PromptOrder, as_batch, done


def generation(number, version=0):
    return Generation(number, version, [[5], [6]], [done(Completions([[number], [1, 2]], [[-0.5], [None, -1.0]]))])


@pytest.mark.parametrize("length", [1, 2, 4])
def test_generation_n_is_sampled_when_generation_n_minus_length_begins(length):
    """At the start also generations 0 to length; at the end none that the run does not use."""
    line, sampled_at = DelayLine(length), {}
    for number in range(7):
        for missing in line.missing(number, last=6):
            sampled_at[missing] = number
            line.append(generation(missing))
        assert line.take(number).number == number
    assert sampled_at == {n: max(0, n - length) for n in range(7)}


def test_a_run_shorter_than_the_line_samples_only_what_it_uses():
    assert list(DelayLine(5).missing(0, last=2)) == [0, 1, 2]


def test_a_restored_line_gives_the_same_generations():
    line, again = DelayLine(2), DelayLine(2)
    for number in (3, 4):
        line.append(generation(number, version=2 * number))
    again.load(line.state())
    assert list(again.missing(3, last=9)) == [5]
    for number in (3, 4):
        before, after = line.take(number), again.take(number)
        assert (after.version, after.prompt_ids) == (2 * number, before.prompt_ids)
        assert after.next_round([[5], [6]]) == before.next_round([[5], [6]])


def test_the_line_waits_for_what_is_being_sampled():
    future = Future()
    line = DelayLine(1)
    line.append(Generation(0, 0, [[5]], [future]))
    future.set_exception(OSError("gone"))
    for wait in (line.settle, line.state):
        with pytest.raises(OSError, match="gone"):
            wait()


def test_completions_of_other_prompts_are_refused():
    with pytest.raises(RuntimeError, match="Generation 7 was sampled for other prompts"):
        generation(7).next_round([[6], [5]])


@pytest.mark.parametrize("rank", [0, 1])
def test_the_prompts_are_those_of_the_data_loader(rank):
    """Two epochs of 3 generations; each of 2 prompts with 4 completions is repeated 6 times. A row is left over."""

    def sampler():
        return RepeatSampler(rows, mini_repeat_count=4, batch_size=2, repeat_count=6, shuffle=True, seed=1)

    rows = [{"prompt": str(i)} for i in range(7)]
    drawn, loader = [], sampler()
    for _ in range(2):
        drawn += list(loader)
    generations = [drawn[i : i + 8] for i in range(0, len(drawn), 8 * 6)]
    assert len(generations) == 6 and generations[:3] != generations[3:]
    order = PromptOrder(rows, sampler(), 8, 6, slice(4 * rank, 4 * rank + 4))
    for number in (0, 1, 4, 5):  # a resumed run begins later
        expected = [rows[i] for i in generations[number][4 * rank : 4 * rank + 4]]
        assert order.rows(number) == expected
    with pytest.raises(ValueError, match="generation 5 were read already"):
        order.rows(5)


def test_completions_as_tensors():
    batch = as_batch([[5], [6, 7]], Completions([[8, 9], [4]], [[-0.5, None], [-1.0]]), 0, torch.device("cpu"))
    assert batch["prompt_ids"].tolist() == [[0, 5], [6, 7]] and batch["prompt_mask"].tolist() == [[0, 1], [1, 1]]
    assert batch["completion_ids"].tolist() == [[8, 9], [4, 0]]
    assert batch["completion_mask"].tolist() == [[1, 1], [1, 0]]
    logps = batch["sampling_per_token_logps"]
    assert logps[0, 0] == -0.5 and logps[0, 1].isnan() and logps[1].tolist() == [-1.0, 0.0]
