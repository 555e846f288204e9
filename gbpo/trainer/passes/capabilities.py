"""What a model's architecture allows: rows without padding, packed rows, shared prompts."""

from collections.abc import Iterator
from typing import Any

from packaging.version import Version
from peft import PeftModel
from torch.nn.modules.dropout import _DropoutNd
from transformers import DynamicCache, __version__
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

# Name of the argument, and of the output, that holds cached keys and values.
CACHE = "cache" if Version(__version__) >= Version("5.24") else "past_key_values"
# Rotary embeddings whose frequencies depend on the longest position of the batch. Less padding changes the result.
_LENGTH_DEPENDENT = {"dynamic", "longrope"}
# Attention that depends only on the distance of two tokens.
_RELATIVE_LAYERS = {"full_attention", "sliding_attention"}


def has_rotary_embeddings(config: Any) -> bool:
    """Whether the model has rotary embeddings, so that positions are relative.

    >>> from transformers import GPT2Config, Qwen2Config
    >>> has_rotary_embeddings(Qwen2Config()), has_rotary_embeddings(GPT2Config())
    (True, False)
    """
    return bool(_rope_types(config))


def depends_on_width(config: Any) -> bool:
    """Whether the result for a row depends on the width of its batch."""
    return bool(_rope_types(config) & _LENGTH_DEPENDENT)


def attends_backwards_only(config: Any) -> bool:
    """Whether no text token attends to a later token; False if this is unknown.

    >>> from transformers import Gemma3TextConfig, GPT2Config
    >>> attends_backwards_only(Gemma3TextConfig())
    True
    >>> attends_backwards_only(Gemma3TextConfig(use_bidirectional_attention=True))
    False
    >>> attends_backwards_only(GPT2Config())
    False
    """
    looks_ahead = getattr(config.get_text_config(), "use_bidirectional_attention", None) not in (None, False, "vision")
    return has_rotary_embeddings(config) and not looks_ahead


def trims(model: Any) -> bool:
    """Whether rows give the same results without columns that are padding in all of them."""
    return not depends_on_width(model.config) and not is_prompt_tuned(model)


def packs(config: Any) -> bool:
    """Whether rows may be concatenated. This needs FlashAttention, which separates rows by their position ids."""
    text = config.get_text_config()
    return "flash" in str(text._attn_implementation) and _has_relative_layers(text) and has_rotary_embeddings(config)


def shares(config: Any) -> bool:
    """Whether rows may read keys and values, with gradients, of a prompt that was run separately.

    False for vision-language models, because they store positions from one call to the next.

    >>> from transformers import MambaConfig, Qwen2Config
    >>> shares(Qwen2Config(attn_implementation="sdpa")), shares(MambaConfig(attn_implementation="sdpa"))
    (True, False)
    """
    layers = DynamicCache(config=config).layers
    kept = bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    text = config.get_text_config()
    attends = text._attn_implementation in ("sdpa", "eager") and _has_relative_layers(text)
    return text is config and kept and attends and not depends_on_width(config)


def decoder_of(model: Any) -> Any:
    """The model that `generate` calls: the base model of a PEFT model, otherwise the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def is_prompt_tuned(model: Any) -> bool:
    """Whether an adapter prepends trained vectors to the prompt."""
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning


def has_dropout(model: Any) -> bool:
    """Whether the model has dropout, so that two equal passes in training mode give different results."""
    modules = any(isinstance(part, _DropoutNd) and part.p > 0 for part in model.modules())
    config = model.config.get_text_config().to_dict()  # attention's dropout is not a module
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
