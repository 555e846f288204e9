"""Take one optimiser step, or several, on fixed completions, in one process or several, with any strategy.

Usage: one_step.py MODEL OUTPUT.pt NUM_PROCESSES '{"config": …}'. OUTPUT.pt holds the change of the weights, the number
of steps, the metrics of the first one, and the trained model's log-probs of some tokens. The trained model is saved to
OUTPUT.pt.model. With "server" in the configuration, the stand-in server at this address samples the completions.
"""

import json
import sys
import zlib
from contextlib import nullcontext

import torch
from datasets import Dataset
from safetensors.torch import load_file

from evals.bench.vllm_server import weights_by_file
from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from rollouts import rollout_of


def rollout(prompts, trainer):
    """Completions of different lengths, some tokens masked; they depend only on their place in the global batch."""
    first = trainer.accelerator.process_index * len(prompts)
    completion_ids, env_mask = [], []
    for i, prompt in enumerate(prompts, start=first):
        rng = torch.Generator().manual_seed(zlib.crc32(f"{prompt}{i}".encode()))
        length = 3 + i % 5
        completion_ids.append([*torch.randint(6, 100, (length,), generator=rng).tolist(), 1])
        env_mask.append([int(t != 1 or i % 3 > 0) for t in range(length + 1)])
    return rollout_of(trainer, prompts, completion_ids, env_mask=env_mask)


def reward(completions, completion_ids, ungraded, silent, **kwargs):
    """Three values with ties.

    Args:
        ungraded: Completions of this many tokens get None.
        silent: All completions of the prompt get 1, so its group has no signal.
    """
    return [
        None if len(ids) == none else 1.0 if same else float(sum(ids) % 3)
        for ids, none, same in zip(completion_ids, ungraded, silent, strict=True)
    ]


def main(model: str, output: str, num_processes: str, config: str) -> None:
    options = json.loads(config)
    grpo = options.pop("algorithm", "gbpo") == "grpo"
    silent = options.pop("silent_prompts", [False, False])
    server = options.pop("server", None)
    if server is not None:
        options |= {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": server}
    args = (BaseConfig if grpo else GBPOConfig)(
        output_dir=f"{output}.run",
        use_cpu=True,
        bf16=False,
        optim="sgd",
        learning_rate=options.pop("learning_rate", 1.0),
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        max_steps=options.pop("max_steps", 1),
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        max_completion_length=10,
        activation_checkpointing=False,
        shuffle_dataset=False,
        **options,
    )
    dataset = Dataset.from_dict({"prompt": ["1+2=", "30+4="], "ungraded": [5, 5], "silent": silent})
    trainer = (BaseTrainer if grpo else GBPOTrainer)(
        model, reward, args, train_dataset=dataset, rollout_func=None if server else rollout
    )
    if trainer.accelerator.num_processes != int(num_processes):
        raise SystemExit(f"wanted {num_processes} processes, got {trainer.accelerator.num_processes}")
    trainer.train()
    trainer.save_model(f"{output}.model")
    tokens = torch.arange(6, 30).view(2, 12)
    with torch.no_grad():
        log_probs = trainer._get_per_token_logps_and_entropies(
            trainer.model_wrapped, tokens, torch.ones_like(tokens), tokens.size(1) - 1
        )[0]
    if trainer.accelerator.is_main_process:
        before, after = (load_file(f"{folder}/model.safetensors") for folder in (model, f"{output}.model"))
        update = torch.cat([(before[name] - after[name]).flatten() for name in sorted(before)])
        metrics = trainer.state.log_history[0]
        steps = trainer.state.global_step
        found = {"update": update, "steps": steps, "metrics": metrics, "tokens": tokens, "log_probs": log_probs}
        torch.save(found, output)


if __name__ == "__main__":
    with weights_by_file() if "server" in json.loads(sys.argv[4]) else nullcontext():
        main(*sys.argv[1:])
    leave_together()
