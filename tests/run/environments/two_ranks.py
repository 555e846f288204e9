"""Train two steps with an environment, on scripted turns: two_ranks.py MODEL OUTPUT.pt NUM_PROCESSES.

The first turn of a completion depends on its place in the global batch, and each later turn on the conversation, so
one process and two get the same completions. OUTPUT.pt holds the trained weights, the rewards and the turns per rank.
"""

import sys
import zlib

import torch
from accelerate.utils import gather_object
from rooms import Questions

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.data.episodes import episodes
from gbpo.run.environments.episode import episodes_of, rewards_of
from gbpo.run.processes.group import leave_together

TURNS = ["<|call|>ask{}<|end|>", '<|call|>answer{"code":"ab"}<|end|>', "right<|end|>", '<|call|>sing{"loud":1}<|end|>']


def main(model, output, processes):
    kind = episodes_of("word", Questions, Questions(), 10.0)
    args = GBPOConfig(
        output_dir=f"{output}.run",
        use_cpu=True,
        bf16=False,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_steps=2,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        num_generations=8,
        per_device_train_batch_size=16 // processes,
        max_completion_length=60,
        max_tool_calling_iterations=4,
        activation_checkpointing=False,
    )
    trainer = GBPOTrainer(model, rewards_of({None: kind}), args, train_dataset=episodes(8), environment_factory=kind)
    assert trainer.accelerator.num_processes == processes
    turns = []

    def scripted(prompt_ids, *unused, **options):
        first = trainer.accelerator.process_index * len(prompt_ids) if not turns or turns[-1] == 0 else None
        texts = [
            TURNS[(first + i) % 2 if first is not None else zlib.crc32(str(ids).encode()) % len(TURNS)]
            for i, ids in enumerate(prompt_ids)
        ]
        turns.append(len(texts))
        return [trainer.processing_class(text)["input_ids"] for text in texts], None

    generate = trainer._generate

    def counted(prompts):
        result = generate(prompts)
        turns.append(0)
        return result

    trainer._generate_single_turn, trainer._generate = scripted, counted
    trainer.train()
    per_rank = gather_object([turns])
    if trainer.accelerator.is_main_process:
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        means = [row["rewards/word/mean"] for row in trainer.state.log_history if "rewards/word/mean" in row]
        torch.save({"weights": weights, "means": means, "turns": per_rank}, output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    leave_together()
