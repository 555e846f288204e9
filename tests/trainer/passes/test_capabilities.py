"""Speed-ups that the architecture of a model allows, from its configuration."""

from transformers import (
    FalconH1Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3NextConfig,
)

from gbpo.trainer.passes.capabilities import depends_on_width, has_rotary_embeddings, packs, shares

LONGROPE = Phi3Config(
    attn_implementation="sdpa",
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 48,
        "long_factor": [2.0] * 48,
        "original_max_position_embeddings": 4096,
    },
)


def test_relative_positions():
    assert has_rotary_embeddings(Qwen2Config())
    assert not has_rotary_embeddings(GPT2Config())


def test_frequencies_that_depend_on_the_longest_row():
    assert depends_on_width(LONGROPE) and not shares(LONGROPE)
    assert not depends_on_width(Qwen2Config()) and shares(Phi3Config(attn_implementation="sdpa"))


def test_packing_needs_flash_attention():
    for name in ("flash_attention_2", "flash_attention_3", "kernels-community/flash-attn2"):
        assert packs(Qwen2Config(attn_implementation=name))
    assert not packs(Qwen2Config(attn_implementation="sdpa"))


def test_models_that_share_prompts():
    for kind in (Qwen2Config, MistralConfig, Gemma3TextConfig):
        assert shares(kind(attn_implementation="sdpa")), kind


def test_models_that_do_not_share_prompts():
    assert not shares(Qwen2Config(attn_implementation="flash_attention_2"))
    for kind in (
        Llama4TextConfig,  # chunks of attention that depend on the padding
        Qwen3NextConfig,  # linear attention
        FalconH1Config,  # attention and a state space in each layer
        Gemma3nTextConfig,  # layers that read the keys of other layers
        Gemma3Config,  # images
    ):
        assert not shares(kind(attn_implementation="sdpa")), kind
