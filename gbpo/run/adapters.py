"""LoRA and QLoRA in a recipe: what is refused before a model is loaded, and the merged model at the end."""

from importlib.util import find_spec
from pathlib import Path

from peft import PeftModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import get_quantization_config
from trl.trainer.utils import create_model_from_path

from .recipe import Recipe


def check(recipe: Recipe) -> None:
    """Raise `ValueError` for options of adapters that would do nothing or could not work."""
    model = recipe.model
    if recipe.run.merge_adapter and not model.use_peft:
        raise ValueError(
            "merge_adapter=True without use_peft has no adapter to merge: all weights are trained and saved. Remove "
            "it, or write use_peft: true."
        )
    if recipe.run.merge_adapter and model.load_in_8bit:
        raise ValueError(
            "merge_adapter=True with load_in_8bit=True would save another model than the one trained: 8 bits round the "
            "activations as well as the weights. Write load_in_4bit: true, or remove merge_adapter."
        )
    for name in ("load_in_4bit", "load_in_8bit"):
        if not getattr(model, name):
            continue
        if not model.use_peft:
            raise ValueError(
                f"{name}=True without use_peft would leave nothing to train: quantised weights have no gradient. "
                "Write use_peft: true, or remove it."
            )
        if find_spec("bitsandbytes") is None:
            raise ValueError(f"{name}=True needs the package bitsandbytes: pip install bitsandbytes, or remove it.")


def save_merged(recipe: Recipe, base: str, adapter: Path, target: Path) -> None:
    """Merge the saved `adapter` into the weights it was trained on and write a plain model into `target`.

    The base is read again, on the CPU, so that it does not matter how training sharded it. A 4-bit base is
    dequantised first: the merged model is then the one that was trained, not the adapter on weights it never saw. The
    sum is rounded to the recipe's `dtype`. Called by the main process alone.
    """
    unset_hf_deepspeed_config()  # under ZeRO-3 the base would be sharded over processes that do not take part
    model = create_model_from_path(
        base,
        **(recipe.training.model_init_kwargs or {}),
        trust_remote_code=recipe.training.trust_remote_code,
        device_map=None,
        quantization_config=get_quantization_config(recipe.model),
    )
    if recipe.model.load_in_4bit:
        model = model.dequantize(dtype=model.dtype)
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(target)
