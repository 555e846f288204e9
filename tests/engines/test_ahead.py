"""`generate_ahead`, and the sync of adapters, with a server of the real vLLM: `make test-engines`."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from evals.bench.vllm_server import vllm_server
from server_runs import rows, wait_until

STEPS, SAVED = 12, 5  # two optimiser steps on each generation; the checkpoint lies between the steps of the third
LORA = ("--use_peft", "true", "--lora_target_modules", "all-linear", "--lora_r", 8, "--lora_dropout", 0)
LORA += ("--learning_rate", 1e-2)
QLORA = (*LORA, "--load_in_4bit", "true")
WEIGHTS = {"all weights": "model.safetensors", "adapter": "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def plain_server(untied_model, tmp_path_factory):
    with vllm_server(untied_model, tmp_path_factory.mktemp("plain") / "server.log") as process:
        yield process


@pytest.fixture(scope="module")
def dequantised_model(untied_model, tmp_path_factory):
    """The weights that nf4 rounds to, as README.md of launch/ makes them."""
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(untied_model, quantization_config=quantization, dtype=torch.float32)
    folder = tmp_path_factory.mktemp("dequantised_model")
    model.dequantize(dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(untied_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora_server(dequantised_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("lora") / "server.log"
    flags = ("--enable-lora", "--max-lora-rank", "8")
    with vllm_server(dequantised_model, log, *flags, VLLM_ALLOW_RUNTIME_LORA_UPDATING="True") as process:
        yield process


def flags_for(server, model, *flags):
    place = ("--vllm_mode", "server", "--vllm_server_base_url", server.url, "--model_name_or_path", model)
    return (*place, "--shuffle_dataset", "false", "--seed", 0, "--max_steps", STEPS, *flags)


@pytest.fixture(scope="module", params=WEIGHTS)
def kind(request):
    """What goes to the server."""
    return request.param


@pytest.fixture(scope="module")
def flags(kind, request):
    """Those of a run with K = 1, with the server that it needs."""
    server, model, more = {
        "all weights": ("plain_server", "untied_model", ()),
        "adapter": ("lora_server", "dequantised_model", LORA),
    }[kind]
    return flags_for(request.getfixturevalue(server), request.getfixturevalue(model), "--generate_ahead", 1, *more)


@pytest.fixture(scope="module")
def whole(flags, run_with_vllm):
    return run_with_vllm(*flags, "--save_strategy", "steps", "--save_steps", SAVED)


def assert_proven(run, gap=1e-5):
    """Weights that never arrived would give a gap as large as the movement."""
    checked = [row for row in rows(run.output) if row.get("gbpo/vllm_logp_movement")]
    assert checked[-1]["gbpo/vllm_logp_gap"] < gap and checked[-1]["gbpo/vllm_logp_movement"] > 0.02
    print(f"\ngap {checked[-1]['gbpo/vllm_logp_gap']:.2g}, movement {checked[-1]['gbpo/vllm_logp_movement']:.2g}")


def test_weights_that_are_withheld_end_the_run(flags, run_with_vllm):
    """The first test, because the server must still have the weights with which it started."""
    run = run_with_vllm(*flags, withhold=".", status=3)
    assert "vLLM does not sample from the policy that is trained: at step 2 " in run.errors
    assert "Traceback" not in run.errors


def test_samples_ahead_with_the_trained_weights(whole):
    """Generation n is used after the training on generation n - 1, so its completions are 2 or 3 steps old."""
    found = rows(whole.output)
    assert [row["gbpo/staleness/max"] for row in found] == [0, 1] + [2, 3] * (STEPS // 2 - 1)
    assert all("time/wait" in row for row in found)
    assert_proven(whole)


def test_a_killed_run_ends_with_the_same_weights(kind, flags, whole, start_with_vllm, run_with_vllm):
    """kill -9 while the server samples; the resumed run asks for the rest with the same seeds."""
    run = start_with_vllm(*flags, "--save_strategy", "steps", "--save_steps", SAVED)
    wait_until(lambda: len(rows(run.output)) > SAVED, run)
    run.kill()
    run.communicate()
    resumed = run_with_vllm(*flags, "--resume_from_checkpoint", run.output / f"checkpoint-{SAVED}")
    weights, expected = (load_file(one.output / "model" / WEIGHTS[kind]) for one in (resumed, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_adapter_is_sent_without_sampling_ahead(lora_server, dequantised_model, run_with_vllm):
    assert_proven(run_with_vllm(*flags_for(lora_server, dequantised_model, *LORA)))


def test_qlora_needs_a_server_of_the_dequantised_weights(lora_server, untied_model, run_with_vllm):
    """PEFT keeps the adapter of a quantised model in bfloat16."""
    flags = flags_for(lora_server, untied_model, *QLORA, "--generate_ahead", 1)
    assert_proven(run_with_vllm(*flags), gap=0.005)
    other = run_with_vllm(*flags, "--bnb_4bit_quant_type", "fp4", status=3)
    assert "serves weights that are not this model's dequantised ones" in other.errors


def test_qlora_needs_a_server_that_takes_adapters(plain_server, untied_model, run_with_vllm):
    run = run_with_vllm(*flags_for(plain_server, untied_model, *QLORA), status=2)
    (message,) = [line for line in run.errors.splitlines() if "gbpo: error: " in line]
    assert "takes no adapters, and quantised weights cannot be sent to it" in message
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --max-lora-rank 8" in message
    assert "Loading weights" not in run.errors and "Traceback" not in run.errors


def test_the_merged_weights_were_never_sent(lora_server):
    """By the log of the server, after all tests above."""
    log = lora_server.log.read_text()
    assert '/v1/load_lora_adapter HTTP/1.1" 200' in log and "collective_rpc" not in log
