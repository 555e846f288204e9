"""Take three optimiser steps in two processes; in the second step the loss of the second rank is NaN.

Usage: finite_step.py MODEL FOLDER PRECISION, where PRECISION is fp32 or bf16 (mixed precision)
"""

import itertools
import sys

import torch
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from rollouts import character_sum


class Record(TrainerCallback):
    """Keeps this rank's part of the weights, before training and after each optimiser step."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(torch.cat([local_part(p).detach().flatten().clone() for p in model.parameters()]))

    on_step_end = on_train_begin


def local_part(parameter):
    """The part of a parameter that this rank holds, under ZeRO-3, FSDP2 or neither."""
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def main(model: str, folder: str, precision: str) -> None:
    args = GBPOConfig(
        output_dir=f"{folder}/run",
        use_cpu=True,
        bf16=precision == "bf16",
        learning_rate=1e-3,  # large enough to change weights that a strategy keeps in bfloat16
        max_steps=3,
        num_iterations=4,
        num_generations=4,
        per_device_train_batch_size=4,
        max_completion_length=6,
        activation_checkpointing=False,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]})
    trainer = GBPOTrainer(model, character_sum, args, train_dataset=dataset)
    if trainer.accelerator.num_processes != 2:
        raise SystemExit(f"wanted 2 processes, got {trainer.accelerator.num_processes}")
    if trainer.accelerator.mixed_precision != {"fp32": "no", "bf16": "bf16"}[precision]:
        raise SystemExit(f"wanted {precision}, got {trainer.accelerator.mixed_precision}")
    rank = trainer.accelerator.process_index

    def make_nan(module, inputs, output):
        if rank == 1 and torch.is_grad_enabled() and trainer.state.global_step == 1:
            return output * float("nan")
        return output

    trainer.model.get_input_embeddings().register_forward_hook(make_nan)
    record = Record()
    trainer.add_callback(record)
    trainer.train()
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(record.weights)]
    torch.save({"changed": changed, "weights": record.weights[-1]}, f"{folder}/{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
