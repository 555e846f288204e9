"""Train a recipe with `trl.GRPOTrainer`, without any of this project's trainers.

    python -m evals.bench.trl_run recipes/tiny_math.yaml --output_dir FOLDER [--field value …]

Data, prompts, rewards, tokenizer and all fields of GRPOConfig are read from the recipe as in `launch/gbpo.py`. The run
writes `metrics.jsonl` to FOLDER, in the same format as other runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import PrinterCallback
from trl import GRPOTrainer

from gbpo.run.data import loading as data
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models import catalogue as models
from gbpo.run.models.description import describe
from gbpo.run.output.progress import MetricsFile
from gbpo.run.recipe.parsing import parse
from gbpo.run.rewards import load_rewards
from gbpo.run.tools.named_tools import load_tools


def main(argv: Sequence[str]) -> None:
    """Train and save only the metrics."""
    data.quiet()
    recipe = parse([*argv, "--algorithm", "grpo"])
    train_set, _ = data.load(recipe.run, evaluation=False)
    model = models.local_model(recipe.model.model_name_or_path)
    tokenizer = describe(model, recipe).tokenizer
    args = recipe.training
    args.model_init_kwargs = {"dtype": recipe.model.dtype, **(args.model_init_kwargs or {})}
    tools = load_tools(recipe.run)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    trainer = GRPOTrainer(
        model,
        load_rewards(recipe.run, train_set, args.max_completion_length),
        args,
        train_dataset=PromptFormat.of(recipe).format(train_set, tokenizer),
        processing_class=tokenizer,
        tools=list(tools.functions),
        environment_factory=tools.session,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(MetricsFile(output))
    trainer.train()


if __name__ == "__main__":  # the rewards' worker processes import this file again
    main(sys.argv[1:])
