"""CUDA's allocator grows its segments, except where the user or vLLM decides otherwise."""

import os

import pytest

from gbpo.run.recipe.parsing import parse

RECIPE = "recipes/tiny_math.yaml"


@pytest.fixture(autouse=True)
def environment(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        os.environ.pop(name, None)


def test_a_recipe_turns_expandable_segments_on():
    parse([RECIPE])
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_a_setting_of_the_user_stays():
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "max_split_size_mb:64"
    parse([RECIPE])
    assert "PYTORCH_ALLOC_CONF" not in os.environ


@pytest.mark.parametrize("option", [("--vllm_enable_sleep_mode", "true"), ("--vllm_tensor_parallel_size", "2")])
def test_sleep_mode_and_tensor_parallelism_of_vllm_need_fixed_segments(option, launched, monkeypatch):
    launched(2)  # tensor parallelism needs two processes
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda name: object())  # as if vLLM were installed
    parse([RECIPE, "--use_vllm", "true", *option])
    assert "PYTORCH_ALLOC_CONF" not in os.environ
