"""The same tokens reach training, votes, the evaluation in training, `evals.evaluate` and `evals.compare`."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from trl import GRPOTrainer

from evals.compare import command as compare
from evals.compare.prepare import prepare
from evals.evaluate import command as evaluate
from evals.evaluate import generation
from evals.evaluate.options import parser, settings_of
from gbpo.run import train
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.recipe.parsing import parse
from templates import SWITCH

RECIPE = """
dataset_name: train.jsonl
eval_dataset_name: held_out.jsonl
dataset_columns: {problem: prompt, answer: solution}
system_prompt: Be brief.
prompt_template: "{prompt} Now"
chat_template_path: own.jinja
chat_template_kwargs: {enable_thinking: false}
reward_funcs: [exact_match, majority_vote]
reward_kwargs: {majority_vote: {votes: 4, boxed: false}}
num_generations: 2
per_device_train_batch_size: 4
steps_per_generation: 1
per_device_eval_batch_size: 4
max_completion_length: 3
max_steps: 1
eval_strategy: steps
eval_steps: 1
learning_rate: 1.0e-3
"""
TEXT = "<|system|>Be brief.<|end|><|user|>{}= Now<|end|><|assistant|><think>\n\n</think>\n\n"


def texts(*sums):
    return {TEXT.format(sum_) for sum_ in sums}


@pytest.mark.slow
def test_one_prompt_everywhere(random_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, sums in {"train": ["1+1", "12+34"], "held_out": ["2+2", "3+3"]}.items():
        rows = [{"problem": f"{sum_}=", "answer": "2"} for sum_ in sums]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("own.jinja").write_text(SWITCH)
    Path("mine.yaml").write_text(RECIPE + f"model_name_or_path: {random_model}\n")
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    seen = {"train": [], "eval": []}
    tokenize = GRPOTrainer._tokenize_prompts

    def recorded(trainer, prompts):
        found = tokenize(trainer, prompts)
        seen["train" if trainer.model.training else "eval"].append(set(tokenizer.batch_decode(found[0])))
        return found

    monkeypatch.setattr(GRPOTrainer, "_tokenize_prompts", recorded)
    train.main(["mine.yaml", "--output_dir", "mine"])
    # a generation of two prompts, and one more round of two votes for each prompt; evaluations at steps 0 and 1
    assert seen == {"train": [texts("1+1", "12+34")] * 2, "eval": [texts("2+2", "3+3")] * 2}

    asked = []

    def complete(checkpoint, prompts, settings):
        asked.append(set(checkpoint.tokenizer.batch_decode([prompt.ids for prompt in prompts])))
        return [[1]] * len(prompts) * settings.samples, [[1]] * len(prompts)

    monkeypatch.setattr(generation, "complete", complete)
    evaluate.main(["mine", "--samples", "1"])
    assert asked.pop() == texts("2+2", "3+3")

    recipe = parse(["mine.yaml"])
    options = ["mine.yaml", "--algorithms", "grpo", "gbpo:target_baseline=exact", "--seeds", "0", "--output", "both"]
    Path("both").mkdir()
    plan = prepare(*compare.make_parser().parse_known_args([*options, "--epsilon_high=0.3", "--num_iterations=2"]), "")
    flags = parser("").parse_args([random_model, str(plan.folder / "test.jsonl"), *plan.evaluation])
    assert settings_of(flags, flags.names[-1], None).prompts == PromptFormat.of(recipe)
    evaluate.main([random_model, str(plan.folder / "test.jsonl"), *plan.evaluation, "--samples=2"])
    assert asked.pop() == texts("3+3")  # every second held-out question

    capsys.readouterr()
    train.main(["mine.yaml", "--dry_run", "true", "--output_dir", "next"])
    longest = len(tokenizer(TEXT.format("12+34"))["input_ids"])
    assert f"longest prompt {longest} tokens" in capsys.readouterr().out
