"""The embedded model in a shape that vLLM's CPU kernels take, and the command with what the CPU build of vLLM needs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from device import ON_GPU

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tiny_math.yaml"
SCRIPT = ROOT / "launch" / "gbpo.py" if ON_GPU else Path(__file__).parent / "cpu_vllm.py"


def widened(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """The same policy with twice the width: heads of 32 dimensions in place of 16, which vLLM has no CPU kernel for.

    New dimensions are zero. The mean square of a state is then half as large, and the scores are divided by √2 more.
    """
    config = Qwen2Config(
        **{**model.config.to_dict(), "hidden_size": 128, "rms_norm_eps": model.config.rms_norm_eps / 2}
    )
    wide = Qwen2ForCausalLM(config)
    first_half = torch.arange(0, 16, 2)  # where rotary embedding of 32 dimensions has the frequencies of 16
    head = torch.cat([first_half, 16 + first_half])
    heads = (32 * torch.arange(config.num_attention_heads).unsqueeze(1) + head).flatten()
    state = {name: torch.zeros_like(value) for name, value in wide.state_dict().items()}
    for name, value in model.state_dict().items():
        if "self_attn.q_proj" in name:
            value = value * math.sqrt(2)
        if "norm" in name:
            value = value / math.sqrt(2)
        rows = heads if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj") else torch.arange(value.size(0))
        if value.dim() == 1:
            state[name][rows] = value
        else:
            columns = heads if "o_proj" in name else torch.arange(value.size(1))
            state[name][rows.unsqueeze(1), columns] = value
    wide.load_state_dict(state)
    return wide


@pytest.fixture(scope="session")
def engine_model(tmp_path_factory):
    """Folder of the embedded model for vLLM; its checkpoint says bfloat16, as those on the Hub do."""
    from gbpo.run.models.catalogue import local_model

    narrow = local_model("builtin:tiny_math")
    tokenizer = AutoTokenizer.from_pretrained(narrow)
    model = Qwen2ForCausalLM.from_pretrained(narrow, dtype=torch.float32)
    wide = widened(model)
    ids = torch.arange(6, 26).view(2, 10)
    with torch.no_grad():
        assert torch.allclose(wide(ids).logits, model(ids).logits, atol=1e-4)
    folder = tmp_path_factory.mktemp("engine_model")
    wide.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    return folder


@pytest.fixture(scope="module")
def untied_model(engine_model, tmp_path_factory):
    """The same with an LM head of its own: vLLM's CPU build reloads no tied one, once it has packed it for oneDNN."""
    tied = Qwen2ForCausalLM.from_pretrained(engine_model, dtype=torch.float32)
    model = Qwen2ForCausalLM(Qwen2Config(**{**tied.config.to_dict(), "tie_word_embeddings": False}))
    model.load_state_dict(tied.state_dict())
    folder = tmp_path_factory.mktemp("untied_model")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(engine_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start_with_vllm(engine_model, tmp_path_factory):
    """`start_with_vllm(*flags, withhold="")` starts the tiny recipe on vLLM; it knows its `output`."""

    def start(*flags, withhold=""):
        output = tmp_path_factory.mktemp("vllm") / "run"
        command = [sys.executable, str(SCRIPT), str(RECIPE), "--use_vllm", "true"]
        command += ["--model_name_or_path", str(engine_model), "--dtype", "float32", "--output_dir", str(output)]
        command += ["--vllm_gpu_memory_utilization", "0.05", "--vllm_max_model_length", "64", "--logging_steps", "1"]
        env = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "CPU_VLLM_WITHHOLD": withhold}
        process = subprocess.Popen(
            [*command, *map(str, flags)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.output = output
        return process

    return start


@pytest.fixture(scope="module")
def run_with_vllm(start_with_vllm):
    """`run_with_vllm(*flags, withhold="", status=0)` is a run that has ended so, with its `output` and `errors`."""

    def run(*flags, withhold="", status=0):
        process = start_with_vllm(*flags, withhold=withhold)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == status, errors[-3000:]
        return SimpleNamespace(output=process.output, errors=errors)

    return run
