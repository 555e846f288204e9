"""`attn_implementation: auto` on machines with other GPUs and packages than this one."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainingArguments,
)
from transformers.utils.import_utils import KERNELS_MAX_VERSION, KERNELS_MIN_VERSION

from gbpo.run import train
from gbpo.run.models import attention
from gbpo.run.models.description import Description
from gbpo.run.models.tiny import character_tokenizer, tiny_decoder
from gbpo.run.recipe.parsing import parse

ROOT = Path(__file__).parents[3]
TINY = str(ROOT / "recipes" / "tiny_math.yaml")
KERNEL = "kernels-community/flash-attn2"
QWEN = Description(Qwen2Config(dtype=torch.float32), Qwen2ForCausalLM, None)
AUTO = ("--attn_implementation", "auto")


@pytest.fixture
def gpu(monkeypatch, launched):
    """A function that gives this process a GPU and FlashAttention packages."""

    def give(capability=(9, 0), packages=(), kernels=False, kernel_loads=False):
        launched(1)
        monkeypatch.setattr(TrainingArguments, "device", torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: 2 in packages)
        monkeypatch.setattr(attention, "is_flash_attn_3_available", lambda: 3 in packages)
        monkeypatch.setattr(attention, "is_kernels_available", lambda: kernels)
        monkeypatch.setattr(attention, "is_flash_attn_kernel_fallback_available", lambda version: kernel_loads)

    return give


def chosen(*flags, description=QWEN):
    return attention.choose(parse([TINY, *AUTO, *flags]), description)


# GPU and packages → the implementation and its reason
MACHINES = {
    "Hopper with both": (
        {"packages": (2, 3), "kernels": True, "kernel_loads": True},
        "flash_attention_3 (package flash-attn-3)",
    ),
    "Hopper with FlashAttention 2": ({"packages": (2,)}, "flash_attention_2 (package flash-attn)"),
    "Ampere with both": ({"capability": (8, 0), "packages": (2, 3)}, "flash_attention_2 (package flash-attn)"),
    "Blackwell with both": ({"capability": (10, 0), "packages": (2, 3)}, "flash_attention_2 (package flash-attn)"),
    "kernel of the Hub": ({"kernels": True, "kernel_loads": True}, f"{KERNEL} (kernel from the Hub)"),
    "kernel that cannot be had": (
        {"kernels": True},
        f"sdpa (neither the package flash-attn nor the kernel {KERNEL} can be used)",
    ),
    "nothing installed": (
        {},
        "sdpa (FlashAttention is not installed: pip install flash-attn, or pip install "
        f"'kernels>={KERNELS_MIN_VERSION},<{KERNELS_MAX_VERSION}')",
    ),
    "Turing": (
        {"capability": (7, 5), "packages": (2,)},
        "sdpa (FlashAttention needs compute capability 8.0, this GPU has 7.5)",
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_best_attention_of_a_machine(machine, gpu):
    has, expected = MACHINES[machine]
    gpu(**has)
    assert str(chosen("--bf16", "true")) == expected


# flags → whether attention gets bfloat16 or float16
DTYPES = {
    "float32": ([], False),
    "mixed precision": (["--bf16", "true"], True),
    "weights in bfloat16": (["--dtype", "bfloat16"], True),
    "weights as in the checkpoint": (["--dtype", "auto"], False),
    "weights by model_init_kwargs": (["--model_init_kwargs", "{dtype: float16}"], True),
    "adapter, mixed precision": (["--use_peft", "true", "--bf16", "true"], False),
    "adapter, mixed precision, vLLM": (["--use_peft", "true", "--bf16", "true", "--use_vllm", "true"], True),
    "adapter on bfloat16": (["--use_peft", "true", "--bf16", "true", "--dtype", "bfloat16"], True),
}


@pytest.mark.parametrize("case", DTYPES)
def test_float32_has_no_flash_attention(case, gpu, monkeypatch):
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda package: package)
    gpu(packages=(2,))
    flags, low = DTYPES[case]
    found = chosen(*flags)
    assert found.name == ("flash_attention_2" if low else "sdpa")
    assert low or "FlashAttention needs" in found.reason


class NoFlash(Qwen2ForCausalLM):
    _supports_flash_attn = False


class Eager(Qwen2ForCausalLM):
    _supports_flash_attn = _supports_sdpa = False


def test_the_architecture_decides(gpu):
    gpu(packages=(2, 3))
    flags = ("--bf16", "true")
    softcap = Description(Gemma2Config(), Gemma2ForCausalLM, None)
    assert chosen(*flags, description=softcap).name == "flash_attention_3"  # transformers passes the cap on
    for architecture, name in ((NoFlash, "sdpa"), (Eager, "eager"), (AutoModelForCausalLM, "sdpa")):
        found = chosen(*flags, description=Description(Qwen2Config(), architecture, None))
        assert str(found) == f"{name} ({architecture.__name__} does not support FlashAttention)"
    sinks = chosen(*flags, description=Description(GptOssConfig(), GptOssForCausalLM, None))
    assert sinks.name == "eager" and "GptOssForCausalLM takes only kernels-community/" in sinks.reason


def test_a_named_attention_is_kept(gpu):
    gpu(packages=(2, 3))
    for flags, name in (
        (["--attn_implementation", "eager", "--bf16", "true"], "eager"),
        (["--model_init_kwargs", "{attn_implementation: eager}"], "eager"),
    ):
        assert chosen(*flags) == attention.Attention(name)
    assert attention.choose(parse([TINY]), QWEN) == attention.Attention(None)


@pytest.mark.parametrize("adapter", [False, True])
def test_generation_with_an_adapter_leaves_mixed_precision(adapter):
    """So FlashAttention is not chosen there: PEFT generates with the base model, which accelerate did not wrap."""
    base = model = tiny_decoder(character_tokenizer())
    if adapter:
        model = get_peft_model(base, LoraConfig(target_modules="all-linear"))
    mixed = []
    layer = base.model.layers[0]
    layer.register_forward_pre_hook(lambda *_: mixed.append(torch.is_autocast_enabled("cpu")))
    AcceleratorState._reset_state(reset_partial_state=True)  # of other tests in this process
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    trained = accelerator.unwrap_model(accelerator.prepare(model))
    trained.generate(input_ids=torch.ones(1, 3, dtype=torch.long), max_new_tokens=1)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert mixed == [not adapter]


def test_a_dry_run_says_which_attention_is_chosen_and_why(random_model, capsys):
    train.main([TINY, *AUTO, "--model_name_or_path", random_model, "--dry_run", "true"])
    page = " ".join(capsys.readouterr().out.split())
    assert "attention sdpa (no GPU), " in page


def test_a_run_prints_its_attention_and_uses_it(random_model, tmp_path, capsys):
    size = "--max_steps 1 --per_device_train_batch_size 16 --num_generations 8 --max_completion_length 4".split()
    train.main([TINY, *AUTO, *size, "--model_name_or_path", random_model, "--output_dir", str(tmp_path / "run")])
    assert "\nAttention: sdpa (no GPU).\n" in "\n" + capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["attn_implementation"] == "sdpa"
