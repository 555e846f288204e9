"""How a model's architecture lets its rows be run: without padding, behind each other, or after a shared prompt."""

from collections.abc import Iterator
from typing import Any

from peft import PeftModel
from torch.nn.modules.dropout import _DropoutNd
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Rotary embeddings whose frequencies depend on the longest position of the batch: a narrower batch is another function.
_LENGTH_DEPENDENT = {"dynamic", "longrope"}
# Attention that depends on the distance of two tokens alone.
_RELATIVE_LAYERS = {"full_attention", "sliding_attention"}


def has_rotary_embeddings(config: Any) -> bool:
    """Whether positions are relative.

    >>> from transformers import GPT2Config, Qwen2Config
    >>> has_rotary_embeddings(Qwen2Config()), has_rotary_embeddings(GPT2Config())
    (True, False)
    """
    return bool(_rope_types(config))


def depends_on_width(config: Any) -> bool:
    """Whether a wider batch of the same rows is another function."""
    return bool(_rope_types(config) & _LENGTH_DEPENDENT)


def is_causal(config: Any) -> bool:
    """Whether tokens of text are known to attend to nothing that follows them, wherever they stand.

    >>> from transformers import Gemma3TextConfig, GPT2Config
    >>> is_causal(Gemma3TextConfig()), is_causal(Gemma3TextConfig(use_bidirectional_attention=True))
    (True, False)
    >>> is_causal(GPT2Config())
    False
    """
    looks_ahead = getattr(config.get_text_config(), "use_bidirectional_attention", None) not in (None, False, "vision")
    return has_rotary_embeddings(config) and not looks_ahead


def trims(model: Any) -> bool:
    """Whether rows are the same without the columns in which all of them are padded."""
    return not depends_on_width(model.config) and not is_prompt_tuned(model)


def packs(config: Any) -> bool:
    """Whether rows may lie behind each other: FlashAttention tells them apart by their positions."""
    text = config.get_text_config()
    return "flash" in str(text._attn_implementation) and _has_relative_layers(text)


def shares(config: Any) -> bool:
    """Whether rows may read keys and values of a prompt that was run apart, with gradients.

    Not for models that see images, which keep positions of their own between two calls.

    >>> from transformers import MambaConfig, Qwen2Config
    >>> shares(Qwen2Config(attn_implementation="sdpa")), shares(MambaConfig(attn_implementation="sdpa"))
    (True, False)
    """
    layers = DynamicCache(config=config).layers
    kept = bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    text = config.get_text_config()
    attends = text._attn_implementation in ("sdpa", "eager") and _has_relative_layers(text)
    return text is config and kept and attends and not depends_on_width(config)


def is_prompt_tuned(model: Any) -> bool:
    """Whether an adapter puts trained vectors before the prompt."""
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning


def has_dropout(model: Any) -> bool:
    """Whether two passes in training mode differ."""
    modules = any(isinstance(part, _DropoutNd) and part.p > 0 for part in model.modules())
    config = model.config.get_text_config().to_dict()  # attention's is no module
    return modules or any("drop" in name and isinstance(value, float) and value > 0 for name, value in config.items())


def _has_relative_layers(text: Any) -> bool:
    return set(getattr(text, "layer_types", None) or _RELATIVE_LAYERS) <= _RELATIVE_LAYERS


def _rope_types(config: Any) -> set[str]:
    return set(_named(getattr(config.get_text_config(), "rope_parameters", None)))


def _named(parameters: Any) -> Iterator[str]:
    if isinstance(parameters, dict):
        if "rope_type" in parameters:
            yield parameters["rope_type"]
        for value in parameters.values():  # one for each type of layer
            yield from _named(value)
