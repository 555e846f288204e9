"""Train an adapter in two processes with the fake engine; write what the engine got, and which frozen weights changed.

Usage: sharded_adapter.py MODEL FOLDER. The adapter is saved to FOLDER/adapter.
"""

import sys
from types import SimpleNamespace

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from trl.generation import vllm_generation

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.preview.memory import _unsharded
from gbpo.run.processes.group import leave_together
from gbpo.run.processes.launcher import is_sharded
from rollouts import character_sum
from vllm_engine import FakeEngine


class Frozen(TrainerCallback):
    """Keeps this rank's part of the frozen weights, and names those that have changed."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights = {name: local_part(p).detach().clone() for name, p in model.named_parameters() if frozen(p)}

    def changed(self, model):
        parts = {name: local_part(parameter) for name, parameter in model.named_parameters()}
        return [name for name, before in self.weights.items() if not torch.equal(parts[name], before)]


def frozen(parameter):
    return not parameter.requires_grad


def local_part(parameter):
    """The part of a parameter that this rank holds, under ZeRO-3, FSDP2 or neither."""
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def whole_engine(*args, **options):
    with _unsharded():
        return FakeEngine(*args, **options)


def main(model: str, folder: str) -> None:
    engine = {"LLM": whole_engine, "SamplingParams": lambda **options: SimpleNamespace(**options)}
    vars(vllm_generation).update(engine, is_vllm_available=lambda: True)
    args = GBPOConfig(
        output_dir=f"{folder}/run",
        use_cpu=True,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16"},
        use_vllm=True,
        vllm_mode="colocate",
        learning_rate=3e-2,
        max_steps=4,
        num_iterations=1,
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=6,
        activation_checkpointing=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]})
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear")
    trainer = GBPOTrainer(model, character_sum, args, train_dataset=dataset, peft_config=lora)
    weights = Frozen()
    trainer.add_callback(weights)
    trainer.train()
    trainer.vllm_generation.sync_weights()
    trainer.save_model(f"{folder}/adapter")
    seen = {
        "engine": trainer.vllm_generation.llm.model.state_dict(),
        "sharded": any(is_sharded(parameter) for parameter in trainer.model.parameters()),
        "changed": weights.changed(trainer.model),
    }
    torch.save(seen, f"{folder}/{trainer.accelerator.process_index}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
