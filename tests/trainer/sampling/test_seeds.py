"""Random streams of the sampler: one per generation, repeatable, and without effect on other random states."""

import random

import numpy as np
import pytest
import torch

from gbpo.trainer.sampling.seeds import SamplingSeeds, random_state


def draws(seed=1, replica=0, calls=((0, "train"),)):
    """One number of each stream."""
    seeds = SamplingSeeds(seed, replica)
    return [seeds.next_stream(*call).random() for call in calls]


def test_a_stream_depends_on_seed_replica_step_mode_and_generation():
    first, second = draws(calls=((0, "train"), (0, "train")))
    others = [draws(seed=2), draws(replica=1), draws(calls=((1, "train"),)), draws(calls=((0, "eval"),))]
    assert len({first, second, *(other[0] for other in others)}) == 6


def test_a_stream_does_not_depend_on_earlier_steps_or_other_modes():
    """So a resumed run has the streams of an uninterrupted one."""
    assert draws(calls=((3, "train"),))[0] == draws(calls=((0, "train"), (3, "eval"), (3, "train")))[-1]


@pytest.mark.slow
def test_samples_depend_on_the_seed(make_with_vllm, engine):
    samples = {}
    for run, seed in {"first": 1, "again": 1, "other": 2}.items():
        make_with_vllm(seed=seed, max_steps=2).train()
        samples[run] = engine.sampled
    assert samples["first"] == samples["again"]
    assert len(samples["first"]) == 16
    assert all(a != b for a, b in zip(samples["first"], samples["other"], strict=True))
    assert all(a != b for a, b in zip(samples["first"][:8], samples["first"][8:], strict=True)), "two generations"


def test_a_resumed_run_samples_like_an_uninterrupted_one(make_with_vllm, engine):
    """The engine of the resumed run is new, which must not change the samples."""
    whole = make_with_vllm(seed=1, max_steps=3, save_strategy="steps", save_steps=2)
    whole.train()
    drawn = engine.sampled[16:]
    again = make_with_vllm(seed=1, max_steps=3)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert engine.sampled == drawn


def test_each_rank_call_and_mode_has_its_own_stream(make_with_vllm):
    trainer = make_with_vllm(seed=1)
    trainer.model.train()

    def draw():
        return trainer._generate(["1+1="])[1][0]

    seen = [draw(), draw()]
    trainer.model.eval()
    seen.append(draw())
    trainer.model.train()
    trainer.state.global_step = 1
    seen.append(draw())
    trainer.state.global_step = 0
    trainer.sampling_seeds._generations.clear()
    assert draw() == seen[0]
    trainer.sampling_seeds._generations.clear()
    trainer.sampling_seeds = SamplingSeeds(1, replica=1)
    seen.append(draw())
    assert len({tuple(tokens) for tokens in seen}) == 5


def test_sampling_restores_the_random_states(make_with_vllm):
    trainer = make_with_vllm(seed=1)
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    trainer._generate(["1+1="])
    assert torch.rand(()) == expected


def test_random_states_are_restored_after_an_error():
    def draw():
        return random.random(), np.random.random(), torch.rand(()).item()

    def seed():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    seed()
    expected = draw()
    seed()
    with pytest.raises(RuntimeError), random_state(0, torch.device("cpu")):
        draw()
        raise RuntimeError
    for drawn, wanted in zip(draw(), expected, strict=True):
        assert drawn == wanted


def test_shuffle_follows_the_seed_although_the_engine_sets_its_own(make_with_vllm):
    orders = []
    for seed in (1, 1, 2):
        make_with_vllm(seed=seed)
        orders.append(torch.randperm(100).tolist())
    assert orders[0] == orders[1] != orders[2]
