"""Take one optimiser step with more votes than completions, in one process or under torchrun; write the rewards.

Usage: voting_step.py MODEL OUTPUT.json NUM_PROCESSES ALGORITHM NUM_GENERATIONS '["<16 digits>", …]'

The last argument holds, for each round of generation, the answers of the 16 rows of the global batch.
"""

import json
import sys

from accelerate.utils import gather_object
from datasets import Dataset
from trl import GRPOConfig

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.processes.group import leave_together
from gbpo.trainer.base import BaseTrainer
from rewards.answers.majority_vote import MajorityVote
from rollouts import ended, rollout_of


class Recorded(MajorityVote):
    """Keeps the rewards of this rank."""

    rewards: list[float] = []

    def __call__(self, *args, **columns):
        self.rewards += super().__call__(*args, **columns)
        return self.rewards


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
        return rollout_of(trainer, prompts, ended(trainer, texts))

    reward = Recorded(votes=len(script) * generations, boxed=False)
    dataset = Dataset.from_dict({"prompt": ["1+2=", "30+4="], "solution": ["1", "1"]})
    trainer = trainer_class(model, reward, args, train_dataset=dataset, rollout_func=rollout)
    trainer.train()
    rewards = gather_object([reward.rewards])  # of each rank
    if trainer.accelerator.is_main_process:
        result = {"rewards": rewards, "rounds": len(rounds), "metrics": trainer.state.log_history[0]}
        with open(output, "w") as file:
            json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
