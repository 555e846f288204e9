"""Run by test_voting.py, alone or under torchrun: one generation with more votes than completions, then what was paid.

Usage: voting_step.py MODEL OUTPUT.json NUM_PROCESSES ALGORITHM NUM_GENERATIONS '["<16 digits>", …]'

The last argument says what the 16 rows of the global batch answer in each round of generation.
"""

import json
import sys

import torch
from datasets import Dataset
from trl import GRPOConfig

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from gbpo.trainer.base import BaseTrainer
from rewards.answers.majority_vote import MajorityVote


class Recorded(MajorityVote):
    """Keeps what this rank was paid."""

    paid: list[float] = []

    def __call__(self, *args, **columns):
        self.paid += super().__call__(*args, **columns)
        return self.paid


def main(model: str, output: str, num_processes: str, algorithm: str, num_generations: str, answers: str) -> None:
    generations, script = int(num_generations), json.loads(answers)
    config, trainer_class = {"gbpo": (GBPOConfig, GBPOTrainer), "grpo": (GRPOConfig, BaseTrainer)}[algorithm]
    args = config(
        output_dir=f"{output}.run",
        use_cpu=True,
        bf16=False,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        activation_checkpointing=False,
        shuffle_dataset=False,
        num_generations=generations,
        per_device_train_batch_size=16 // int(num_processes),
    )
    rounds = []

    def rollout(prompts, trainer):
        first = trainer.accelerator.process_index * len(prompts)
        texts = script[len(rounds)][first : first + len(prompts)]
        rounds.append(texts)
        encode = trainer.processing_class
        return {
            "prompt_ids": [encode(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": [[*encode(text)["input_ids"], encode.eos_token_id] for text in texts],
            "logprobs": None,
        }

    reward = Recorded(votes=len(script) * generations, boxed=False)
    dataset = Dataset.from_dict({"prompt": ["1+2=", "30+4="], "solution": ["1", "1"]})
    trainer = trainer_class(model, reward, args, train_dataset=dataset, rollout_func=rollout)
    trainer.train()
    everything = [None]
    if trainer.accelerator.num_processes > 1:
        everything *= trainer.accelerator.num_processes
        torch.distributed.all_gather_object(everything, reward.paid)
    else:
        everything = [reward.paid]
    if trainer.accelerator.is_main_process:
        result = {"paid": everything, "rounds": len(rounds), "metrics": trainer.state.log_history[0]}
        with open(output, "w") as file:
            json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
