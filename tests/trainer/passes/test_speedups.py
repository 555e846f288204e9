"""Which exact speed-ups act in a run, and the reason why each of the others does not."""

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    MambaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3NextConfig,
)
from trl import GRPOConfig

from gbpo import GBPOConfig
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.passes import capabilities
from gbpo.trainer.passes.speedups import SPEEDUPS, Speedups, decide, requested_speedups

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
}
SMALL_GPT2 = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
NO_DROPOUT = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"), 0.0)
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 4096,
}
LINEAR_ATTENTION = {
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MODELS = {
    "qwen2": Qwen2Config(**SHAPE),
    "dropout": Qwen2Config(**SHAPE, attention_dropout=0.1),
    "longrope": Phi3Config(**SHAPE, rope_parameters=LONGROPE, pad_token_id=0),
    "gpt2": GPT2Config(**SMALL_GPT2, **NO_DROPOUT),
    "mamba": MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1),
    "linear attention": Qwen3NextConfig(**SHAPE, **LINEAR_ATTENTION),
    "experts": MixtralConfig(**SHAPE),
}


def model_of(name):
    """A model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(MODELS[name])


def config(kind=GBPOConfig, **fields):
    small = {"num_generations": 2, "per_device_train_batch_size": 2, "num_iterations": 2}
    if kind is not GRPOConfig:
        fields = {"activation_checkpointing": False} | fields
    return kind("unused", use_cpu=True, bf16=False, **small | fields)


def decided(model="qwen2", *, bounded_loss=True, whole_model=True, kind=GBPOConfig, **fields):
    return decide(config(kind, **fields), model_of(model), bounded_loss=bounded_loss, whole_model=whole_model)


NEEDS_FLASH = {"pack_rows": "attention is sdpa, packing needs FlashAttention"}


def test_all_act_where_they_can():
    """FlashAttention is not available on the CPU, so rows are not packed."""
    assert decided().inactive == NEEDS_FLASH
    assert decided().without_sharing_in_passes is None


def test_none():
    assert decided(exact_speedups=["none"]).inactive == dict.fromkeys(SPEEDUPS, "not in exact_speedups")


def test_a_list():
    speedups = decided(exact_speedups=["arrange_rows"])
    assert [name for name in SPEEDUPS if name in speedups] == ["arrange_rows"]


def test_a_config_of_trl_asks_for_all():
    speedups = decided(kind=GRPOConfig, bounded_loss=False)
    assert [name for name in SPEEDUPS if name in speedups] == ["trim_padding", "share_prompts", "reuse_first_pass"]


MICRO_BATCH = "TRL's GRPO loss is computed per micro-batch"
BALANCE = "the load-balancing loss of experts depends on the micro-batch"
NEITHER_DIVIDES = "neither of steps_per_generation and gradient_accumulation_steps divides the other"
MISALIGNED = {"steps_per_generation": 3, "gradient_accumulation_steps": 2}
REASONS = {
    "the loss of TRL": (
        {"bounded_loss": False},
        {"arrange_rows": MICRO_BATCH, "skip_zero_signal": MICRO_BATCH},
    ),
    "rotary embeddings": (
        {"model": "longrope"},
        {
            "trim_padding": "rotary embeddings depend on the width of the batch",
            "pack_rows": "rotary embeddings depend on the width of the batch",
            "share_prompts": "this model's attention or layers do not allow shared prompts",
        },
    ),
    "packing without trimming": (
        {"exact_speedups": [name for name in SPEEDUPS if name != "trim_padding"]},
        {"trim_padding": "not in exact_speedups", "pack_rows": "needs trim_padding"},
    ),
    "sharded": ({"whole_model": False}, {"share_prompts": "the model is sharded"}),
    "dropout": (
        {"model": "dropout"},
        {
            "share_prompts": "the model has dropout, which would be the same for all completions of a prompt",
            "reuse_first_pass": "dropout makes two passes differ",
        },
    ),
    "no keys and values": (
        {"model": "mamba"},
        {
            "pack_rows": "attention is eager, packing needs FlashAttention",
            "share_prompts": "the model does not accept cached keys and values",
        },
    ),
    "linear attention": (
        {"model": "linear attention", "router_aux_loss_coef": 0.0},
        {"share_prompts": "this model's attention or layers do not allow shared prompts"},
    ),
    "vLLM": ({"use_vllm": True}, {}),
    "vLLM's log-probs": (
        {"use_vllm": True, "ratio_anchor": "sampler", "target_baseline": "exact"},
        {"reuse_first_pass": "ratio_anchor: sampler uses the sampler's log-probs instead"},
    ),
    "misaligned": (
        MISALIGNED,
        {"reuse_first_pass": NEITHER_DIVIDES},
    ),
    "top entropy": (
        {"top_entropy_quantile": 0.5},
        dict.fromkeys(
            ("arrange_rows", "skip_zero_signal"), "top_entropy_quantile compares the tokens of a micro-batch"
        ),
    ),
    "experts": ({"model": "experts"}, dict.fromkeys(("arrange_rows", "skip_zero_signal"), BALANCE)),
    "experts without balance loss": ({"model": "experts", "router_aux_loss_coef": 0.0}, {}),
    "KL": ({"beta": 0.1}, {"skip_zero_signal": "beta=0.1: the KL penalty gives every row a gradient"}),
    "entropy bonus": (
        {"entropy_coef": 0.1},
        {"skip_zero_signal": "the entropy bonus gives every row a gradient"},
    ),
    "adaptive entropy": (
        {"use_adaptive_entropy": True, "entropy_target": 1.0},
        {"skip_zero_signal": "the entropy bonus gives every row a gradient"},
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_reason(case):
    options, reasons = REASONS[case]
    assert decided(**options).inactive == NEEDS_FLASH | reasons


def test_prompt_tuning():
    tuning = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model = get_peft_model(AutoModelForCausalLM.from_config(MODELS["qwen2"]), tuning)
    found = decide(config(), model, bounded_loss=True, whole_model=True).inactive
    assert found == dict.fromkeys(("trim_padding", "pack_rows", "share_prompts"), "prompt tuning")


IN_GENERATION_ONLY = {
    "needs trim_padding": {"exact_speedups": ["share_prompts"]},
    "positions are absolute": {"model": "gpt2"},
    "pad_to_multiple_of=8": {"pad_to_multiple_of": 8},
    "activation checkpointing keeps no keys and values": {"activation_checkpointing": True},
}


@pytest.mark.parametrize("reason", IN_GENERATION_ONLY)
def test_prompts_shared_in_generation_only(reason):
    speedups = decided(**IN_GENERATION_ONLY[reason])
    assert "share_prompts" in speedups and speedups.without_sharing_in_passes == reason
    assert f"Prompts are shared in generation only: {reason}." in speedups.line()


def test_packed_rows_share_prompts_in_generation_only(monkeypatch):
    monkeypatch.setattr(capabilities, "packs", lambda config: True)
    speedups = decided()
    assert "pack_rows" in speedups and speedups.without_sharing_in_passes == "rows are packed"


def test_line():
    everything = Speedups({})
    assert everything.line() == f"Exact speed-ups: {', '.join(SPEEDUPS)}."
    nothing = Speedups(dict.fromkeys(SPEEDUPS, "why"), "rows are packed")
    assert nothing.line() == f"Exact speed-ups: none. Not active: {'; '.join(f'{name} (why)' for name in SPEEDUPS)}."


def test_requested_names():
    assert requested_speedups("all") == requested_speedups(["all"]) == set(SPEEDUPS)
    assert requested_speedups("none") == requested_speedups(["none"]) == requested_speedups([]) == set()
    assert requested_speedups("pack_rows") == {"pack_rows"}


@pytest.mark.parametrize("kind", [BaseConfig, GBPOConfig])
@pytest.mark.parametrize("names", [["fast"], ["all", "none"], ["trim_padding", "trim"]])
def test_unknown_names_are_refused(kind, names):
    with pytest.raises(
        ValueError, match=r"exact_speedups=\['.*not a speed-up. Write all, none, or a list of trim_padding"
    ):
        config(kind, exact_speedups=names)


@pytest.mark.parametrize("kind", [BaseConfig, GBPOConfig])
@pytest.mark.parametrize("name", SPEEDUPS)
def test_fields_of_an_earlier_version_are_refused(kind, name):
    with pytest.raises(TypeError, match=f"{name} is now a name in exact_speedups"):
        config(kind, **{name: False})
