"""Merges a trained LoRA or QLoRA adapter into its base model."""

from pathlib import Path

from peft import PeftModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import get_quantization_config
from trl.trainer.utils import create_model_from_path

from ..recipe.parsing import Recipe


def save_merged(recipe: Recipe, base: str, adapter: Path, target: Path) -> None:
    """Merge a saved adapter into the weights it was trained on, and save the model. Call it on the main process only.

    The base model is loaded again on the CPU, because training may have sharded it. A 4-bit base is dequantised first,
    because the adapter was trained on the rounded weights. The merged weights have the recipe's `dtype`.

    Args:
        recipe: The recipe of the run.
        base: Folder or Hub id of the base model.
        adapter: Folder of the saved adapter.
        target: Folder to write the merged model to.
    """
    unset_hf_deepspeed_config()  # else ZeRO-3 would shard the base over processes that do not call this function
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
