"""Train an adapter in two processes with the fake engine; write what the engine got, and which frozen weights changed.

Usage: sharded_adapter.py MODEL FOLDER. The adapter is saved to FOLDER/adapter.
"""

import sys
from types import SimpleNamespace

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from trl.generation import vllm_generation

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from rollouts import character_sum
from vllm_engine import FakeEngine


def main(model: str, folder: str) -> None:
    engine = {"LLM": FakeEngine, "SamplingParams": lambda **options: SimpleNamespace(**options)}
    vars(vllm_generation).update(engine, is_vllm_available=lambda: True)
    args = GBPOConfig(
        output_dir=f"{folder}/run",
        use_cpu=True,
        bf16=False,
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
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    trainer.vllm_generation.sync_weights()
    sharded, changed = 0, []
    for name, parameter in trainer.model.named_parameters():
        sharded += isinstance(parameter, DTensor)
        if name in frozen:
            now = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            changed += [] if torch.equal(now, frozen[name]) else [name]
    trainer.save_model(f"{folder}/adapter")
    seen = {"engine": trainer.vllm_generation.llm.model.state_dict(), "sharded": sharded, "changed": changed}
    torch.save(seen, f"{folder}/{trainer.accelerator.process_index}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
