"""Run by test_step.py, alone or under torchrun: one optimiser step on fixed completions, then write what changed.

Usage: one_step.py MODEL OUTPUT.pt NUM_PROCESSES '{"config": …}'
"""

import json
import sys
import zlib

import torch
from datasets import Dataset

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes import leave_together


def rollout(prompts, trainer):
    """Completions that depend on their place in the global batch alone, of different lengths, some tokens masked."""
    first = trainer.accelerator.process_index * len(prompts)
    prompt_ids, completion_ids, env_mask = [], [], []
    for i, prompt in enumerate(prompts, start=first):
        rng = torch.Generator().manual_seed(zlib.crc32(f"{prompt}{i}".encode()))
        length = 3 + i % 5
        prompt_ids.append(trainer.processing_class(prompt)["input_ids"])
        completion_ids.append([*torch.randint(6, 100, (length,), generator=rng).tolist(), 1])
        env_mask.append([int(t != 1 or i % 3 > 0) for t in range(length + 1)])
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None, "env_mask": env_mask}


def reward(completions, completion_ids, ungraded, **kwargs):
    """Three values with ties; None for the completions of the lengths named by the data set."""
    return [
        None if len(ids) == none else float(sum(ids) % 3) for ids, none in zip(completion_ids, ungraded, strict=True)
    ]


def main(model: str, output: str, num_processes: str, config: str) -> None:
    args = GBPOConfig(
        output_dir=f"{output}.run",
        use_cpu=True,
        bf16=False,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        max_completion_length=10,
        activation_checkpointing=False,
        shuffle_dataset=False,
        **json.loads(config),
    )
    dataset = Dataset.from_dict({"prompt": ["1+2=", "30+4="], "ungraded": [5, 5]})
    trainer = GBPOTrainer(model, reward, args, train_dataset=dataset, rollout_func=rollout)
    if trainer.accelerator.num_processes != int(num_processes):
        raise SystemExit(f"wanted {num_processes} processes, got {trainer.accelerator.num_processes}")
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    after = trainer.accelerator.unwrap_model(trainer.model).parameters()
    update = torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)])
    if trainer.accelerator.is_main_process:
        torch.save({"update": update, "metrics": trainer.state.log_history[0]}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
