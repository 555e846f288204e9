"""Sampling options that change the distribution are named, and a fixed seed is refused."""

import pytest

from gbpo import GBPOConfig
from gbpo.trainer.sampling.unbiased import biased_sampling, check_sampling


def config(**fields):
    return GBPOConfig("unused", use_cpu=True, bf16=False, num_generations=4, per_device_train_batch_size=8, **fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_p": 0.9}, "top_p=0.9"),
        ({"top_k": 50}, "top_k=50"),
        ({"min_p": 0.05}, "min_p=0.05"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"vllm_structured_outputs_regex": "[0-9]"}, "vllm_structured_outputs_regex='[0-9]'"),
        ({"generation_kwargs": {"structured_outputs": {"regex": "a"}}}, "structured_outputs={'regex': 'a'}"),
        ({"generation_kwargs": {"temperature": 0.5}}, "temperature=0.5"),
        ({"generation_kwargs": {"logit_bias": {1: 2.0}}}, "logit_bias={1: 2.0}"),
        ({"generation_kwargs": {"top_p": 1.0}, "top_p": 0.9}, None),  # generation_kwargs takes precedence
        ({"generation_kwargs": {"stop": ["\n"], "presence_penalty": 0.0}}, None),
        ({"temperature": 0.5}, None),
        ({"temperature": 0.5, "generation_kwargs": {"temperature": 0.5}}, None),
        ({"top_k": -1, "min_p": 0.0}, None),
    ],
)
def test_a_biased_option_is_named(fields, named):
    warning = biased_sampling(config(**fields))
    assert (warning is None) if named is None else warning.startswith(f"{named}: ")


def test_a_seed_in_generation_kwargs_is_refused():
    with pytest.raises(ValueError, match=r"seed=7: .* Remove this seed"):
        check_sampling(config(use_vllm=True, generation_kwargs={"seed": 7}))
    check_sampling(config(use_vllm=True, generation_kwargs={"stop": ["\n"]}))
