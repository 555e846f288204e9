"""The merged model that a run with LoRA or QLoRA writes at its end, where the recipe asks for it."""

from pathlib import Path

from peft import PeftModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import get_quantization_config
from trl.trainer.utils import create_model_from_path

from ..recipe.parsing import Recipe


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
