"""Each hazard: a recipe that has it, one that does not, the shipped recipes, and one warning per run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import Qwen2Config

from gbpo import GBPOConfig
from gbpo.run import train
from gbpo.run.models import tiny_chain
from gbpo.run.models.description import Description
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.preview import hazards
from gbpo.run.recipe.parsing import parse

ROOT = Path(__file__).parents[3]
TINY = str(ROOT / "recipes" / "tiny_math.yaml")
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ARITHMETIC = Dataset.from_dict({"prompt": ["1+1=", "1+2="]})
MANY = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(256)]})  # two generations of the largest recipe
TOKENIZER = character_tokenizer()
MODEL = Description(Qwen2Config(max_position_embeddings=100), None, TOKENIZER)
QWEN_MATH = Description(Qwen2Config(max_position_embeddings=4096), None, TOKENIZER)


def found(*flags, path=TINY, train_set=ARITHMETIC, eval_set=None, model=MODEL, prompt_tokens=9):
    return hazards.find(parse([str(path), *map(str, flags)]), train_set, eval_set, model, prompt_tokens)


def without_vllm(monkeypatch):
    """Lets recipes with vLLM be parsed if it is not installed."""
    monkeypatch.setattr("gbpo.run.recipe.checks.find_spec", lambda name: name)


BOXED = r"{prompt} Answer in \boxed{}."

# flags with the hazard, the same flags after the fix, and words of the warning
CASES = {
    "one update per generation": (
        ["--steps_per_generation", 1],
        ["--steps_per_generation", 1, "--num_iterations", 2],
        ["One optimiser step per generation", "target_baseline='median'", "num_iterations above 1"],
    ),
    "unequal bounds with the median": (
        ["--epsilon_high", 0.28],
        ["--epsilon_high", 0.28, "--target_baseline", "exact"],
        # 1 + (0.28 - 0.2) / 2 and 0.28 / 0.48
        ["epsilon=0.2", "epsilon_high=0.28", "1.04", "0.58 quantile", "target_baseline: exact"],
    ),
    "group of two": (["--num_generations", 2], ["--num_generations", 4], ["num_generations=2", "8 or more"]),
    "longer than the window": (
        ["--max_completion_length", 92],
        ["--max_completion_length", 91],  # 9 + 91 = 100
        ["9 tokens", "max_completion_length=92", "window of 100", "max_prompt_tokens: 8 or max_completion_length: 91"],
    ),
    "longer than vLLM's window": (
        ["--use_vllm", "true", "--vllm_max_model_length", 12],
        ["--use_vllm", "true", "--vllm_max_model_length", 13],
        ["vllm_max_model_length of 12"],
    ),
    "temperature of a server": (
        ["--use_vllm", "true", "--vllm_mode", "server", "--temperature", 0.7],
        ["--use_vllm", "true", "--vllm_mode", "colocate", "--temperature", 0.7],
        ["temperature=0.7", "--logprobs-mode processed_logprobs"],
    ),
    "rounded away": (
        ["--dtype", "bfloat16", "--learning_rate", 1e-6],
        ["--dtype", "bfloat16", "--learning_rate", 1e-6, "--use_peft", "true", "--lora_dropout", 0],
        # 0.02 lies in [2^-6, 2^-5), where bfloat16 has a spacing of 2^-13: half of it is 6e-05
        ["dtype='bfloat16'", "learning_rate=1e-06", "6e-05", "dtype: float32"],
    ),
    "rounded away, large steps": (
        ["--dtype", "bfloat16", "--learning_rate", 6.1e-5],
        ["--dtype", "bfloat16", "--learning_rate", 6.2e-5],
        ["6e-05"],
    ),
    "dropout in the adapter": (
        ["--use_peft", "true", "--lora_dropout", 0.05],
        ["--use_peft", "true"],
        ["lora_dropout=0.05", "noise", "share_prompts", "Remove lora_dropout"],
    ),
    "dropout not disabled": (
        ["--use_peft", "true", "--lora_dropout", 0.05],
        ["--use_peft", "true", "--lora_dropout", 0.05, "--disable_dropout", "true"],
        ["lora_dropout=0.05"],
    ),
    "opposite weights": (
        ["--reward_funcs", "exact_match", "exact_match", "--reward_weights", 1, -1],
        ["--reward_funcs", "exact_match", "format", "--reward_weights", 1, -0.5],
        ["'exact_match'", "twice", "cancel"],
    ),
    "weights that sum to nothing": (
        ["--reward_funcs", "exact_match", "format", "--reward_weights", 0.5, -0.5],
        ["--reward_funcs", "exact_match", "format", "--reward_weights", 1, 0],
        ["[0.5, -0.5]", "sum to 0"],
    ),
    "compiled": (
        ["--torch_compile", "true"],
        ["--torch_compile", "false"],
        ["torch_compile=True", "gbpo/pass_shapes", "torch_compile: false"],
    ),
    "variable that the chat template does not read": (
        ["--chat_template_kwargs", "{enable_thinking: false}"],
        ["--chat_template_kwargs", "{}"],
        ["{'enable_thinking': False}", "does not read enable_thinking", "Correct the name"],
    ),
    "answers that no prompt asks to box": (
        ["--reward_funcs", "math"],
        ["--reward_funcs", "math", "--system_prompt", r"Answer in \boxed{}."],
        ["math", "none of the first 2 prompts"],
    ),
    "penalty on completions that the loss leaves out": (
        ["--reward_funcs", "exact_match", "cosine", "--mask_truncated_completions", "true", "--prompt_template", BOXED],
        ["--reward_funcs", "exact_match", "cosine", "--prompt_template", BOXED],
        ["mask_truncated_completions=True", "cosine", "nothing is learnt"],
    ),
    "top-p": (["--top_p", 0.9], ["--top_p", 1.0], ["top_p=0.9", "biases"]),
    "top-k": (["--top_k", 50], ["--top_k", 0], ["top_k=50"]),
    "min-p": (["--min_p", 0.05], ["--min_p", 0.0], ["min_p=0.05"]),
    "repetition penalty": (["--repetition_penalty", 1.1], ["--repetition_penalty", 1], ["repetition_penalty=1.1"]),
    "sampling by generation_kwargs": (
        ["--generation_kwargs", "{top_p: 0.5}"],
        ["--generation_kwargs", "{top_p: 1.0}"],
        ["top_p=0.5"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_found_and_gone_after_the_fix(case, monkeypatch):
    without_vllm(monkeypatch)
    hazardous, fixed, words = CASES[case]
    lines = found(*hazardous)
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    assert found(*fixed) == []


def test_float32_copies_of_the_weights_lose_no_updates():
    parsed = parse([TINY, "--dtype", "bfloat16", "--learning_rate", "1e-6"])
    parsed.training.deepspeed_plugin = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}})
    assert hazards.find(parsed, ARITHMETIC, None, MODEL, 9) == []


def test_evaluation_prompts_in_the_training_set():
    (line,) = found(eval_set=Dataset.from_dict({"prompt": ["1+2=", "1+2=", "5+5="]}))
    assert line.startswith("2 of 3 prompts of the evaluation set")
    assert found(eval_set=Dataset.from_dict({"prompt": ["5+5="]})) == []


def test_evaluation_set_of_messages():
    chats = Dataset.from_dict({"prompt": [[{"role": "user", "content": "1+1="}]]})
    assert len(found(train_set=chats, eval_set=chats)) == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_shipped_recipes_have_no_hazard(path, algorithm, monkeypatch):
    without_vllm(monkeypatch)
    model = QWEN_MATH
    if path.stem == "tiny_chain":  # its model has learnt to box answers that no prompt asks for
        model = replace(model, tokenizer=tiny_chain.tokenizer())
    assert found("--algorithm", algorithm, path=path, train_set=MANY, model=model, prompt_tokens=500) == []


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_difficulty_that_cannot_act(algorithm):
    """256 prompts are 8 generations of 32, with two optimiser steps on each: 16 steps are one pass."""
    flags = ["--algorithm", algorithm, "--difficulty", "{low: 0.1, high: 0.9}"]
    (line,) = found(*flags, "--max_steps", 16, train_set=MANY)
    assert "has no effect: the run sees each prompt 1 times" in line and "larger max_steps" in line
    (line,) = found(*flags, "--max_steps", 6, train_set=MANY)
    assert "0.38 times" in line
    assert found(*flags, "--max_steps", 17, train_set=MANY) == []
    assert found(*flags, "--max_steps", 6, "--resample_zero_signal_groups", "true", train_set=MANY) == []
    (line,) = found(*flags, train_set=MANY.select(range(63)))
    assert "every generation takes 32 of the 63 prompts" in line and "generation_batch_size" in line
    assert found(*flags, train_set=MANY.select(range(64))) == []


def test_grpo_has_no_hazards_of_the_target():
    assert found("--algorithm", "grpo", "--epsilon_high", 0.28, "--steps_per_generation", 1) == []


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_optimiser_steps_that_depend_on_the_number_of_processes(algorithm, tmp_path, launched):
    recipe = tmp_path / "own.yaml"
    fields = "generation_batch_size: 512\nper_device_train_batch_size: 8\nnum_iterations: 2"
    recipe.write_text(f"model_name_or_path: builtin:tiny_math\ndataset_name: arithmetic\n{fields}\n")
    launched(2)
    (line,) = found("--algorithm", algorithm, "--gradient_accumulation_steps", 4, path=recipe, model=QWEN_MATH)
    assert line.startswith("2 processes") and "16 optimiser steps" in line  # 512 × 2 / (8 × 2 × 4)
    assert found("--algorithm", algorithm, "--optimizer_batch_size", 32, path=recipe, model=QWEN_MATH) == []


def test_the_config_lists_its_own_hazards_in_python(tmp_path):
    args = GBPOConfig(str(tmp_path), use_cpu=True, bf16=False, epsilon_high=0.28)
    lines = args.hazards()
    assert [line.split()[0] for line in lines] == ["One", "epsilon=0.2"]


def log(callback, ratio, step, capsys):
    args = SimpleNamespace(max_completion_length=16)
    state = SimpleNamespace(is_world_process_zero=True, global_step=step)
    callback.on_log(args, state, None, logs={} if ratio is None else {"completions/clipped_ratio": ratio})
    return capsys.readouterr().err


def test_mostly_truncated_completions_are_reported_once_after_three_logs(capsys):
    callback = hazards.MostlyTruncated()
    printed = [log(callback, ratio, step, capsys) for step, ratio in enumerate([0.9, None, 0.5, 0.4, 0.9, 0.9])]
    assert [bool(line) for line in printed] == [False, False, False, True, False, False]
    assert "max_completion_length=16 cut off 60%" in printed[3]


def test_rarely_truncated_completions_are_not_reported(capsys):
    callback = hazards.MostlyTruncated()
    assert not any(log(callback, 0.5, step, capsys) for step in range(6))


def test_a_run_prints_a_hazard_once(random_model, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    train.main(
        [
            *(TINY, "--model_name_or_path", random_model, "--max_steps", "1", "--logging_steps", "1"),
            *("--steps_per_generation", "1", "--per_device_train_batch_size", "8", "--dataset_kwargs", "{size: 8}"),
        ]
    )
    output = capfd.readouterr()
    assert (output.err + output.out).count("One optimiser step per generation") == 1
    assert "gbpo: warning: One optimiser step per generation" in output.err
    assert json.loads((tmp_path / "runs" / "tiny_math" / "config.json").read_text())
