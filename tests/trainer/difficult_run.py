"""Train with `difficulty` in one process or under torchrun: 8 generations with two optimiser steps each.

Usage: difficult_run.py MODEL FOLDER [CHECKPOINT]. FOLDER/result.pt holds the prompts of each generation over all
ranks, the solve rates and the trained weights.
"""

import os
import sys
import zlib
from itertools import chain

import torch
from accelerate.utils import gather_object
from datasets import Dataset

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from rollouts import rollout_of

RANKS = int(os.environ.get("WORLD_SIZE", "1"))


def rollout(prompts, trainer):
    """Completions that depend only on the step and on their place in the global batch."""
    first = trainer.accelerator.process_index * len(prompts)
    completions = []
    for i, prompt in enumerate(prompts, start=first):
        rng = torch.Generator().manual_seed(zlib.crc32(f"{prompt}{i}{trainer.state.global_step}".encode()))
        completions.append([*torch.randint(6, 100, (3 + i % 3,), generator=rng).tolist(), 1])
    return rollout_of(trainer, prompts, completions)


def reward(prompts, completion_ids, **kwargs):
    """0 or 1. The prompts 0 to 2 are never solved."""
    return [float(sum(ids) % 2) * (prompt[0] > "2") for prompt, ids in zip(prompts, completion_ids, strict=True)]


def main(model: str, folder: str, checkpoint: str | None = None) -> None:
    args = GBPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        learning_rate=1e-3,
        max_steps=16,
        logging_steps=1,
        save_strategy="steps",
        save_steps=7,
        disable_tqdm=True,
        max_completion_length=10,
        activation_checkpointing=False,
        num_generations=4,
        per_device_train_batch_size=12 // RANKS,
        num_iterations=2,
        difficulty={"low": 0.1, "high": 0.9, "revisit": 0.25},
    )
    dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(8)]})
    trainer = GBPOTrainer(model, reward, args, train_dataset=dataset, rollout_func=rollout)
    used, score = [], trainer._scored

    def record(inputs):
        used.append([row["prompt"] for row in inputs])
        return score(inputs)

    trainer._scored = record
    trainer.train(resume_from_checkpoint=checkpoint)
    by_rank = gather_object([used])
    if trainer.accelerator.is_main_process:
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        prompts = [[*chain(*parts)] for parts in zip(*by_rank, strict=True)]
        torch.save({"prompts": prompts, "rates": trainer.curriculum.rates, "weights": weights}, f"{folder}/result.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
