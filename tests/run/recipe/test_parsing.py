"""Parsing: types of values, and every shipped recipe: its header, its plan, and two steps of a run."""

import json
import math
import re
import shlex
from dataclasses import fields
from pathlib import Path
from threading import Thread

import pandas
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, Qwen2Config
from trl import ModelConfig, get_peft_config
from yaml import safe_load as parse_yaml

import pictures
import processes
from gbpo.run import train
from gbpo.run.recipe import checks
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.recipe.parsing import parse
from gbpo.trainer.config import GBPOConfig
from gbpo.trainer.passes.speedups import SPEEDUPS, decide
from rewards.judges import example_server

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

# recipe → number of processes, completions per optimiser step, optimiser steps per generation
PLANS = {
    "tiny_math": (1, 128, 2),
    "tiny_code": (1, 64, 2),
    "tiny_curriculum": (1, 128, 2),
    "tiny_ttrl": (1, 128, 2),
    "tiny_words": (1, 128, 4),
    "tiny_chain": (1, 64, 4),
    "tiny_judge": (1, 128, 2),
    "tiny_vision": (1, 64, 2),
    "tiny_tools": (1, 128, 2),
    "tiny_environment": (1, 64, 2),
    "gemma_cpu": (1, 32, 2),
    "qwen_math": (1, 128, 8),
    "qwen_ttrl": (1, 64, 40),
    "qwen_math_lora": (1, 32, 8),
    "qwen_math_qlora": (1, 16, 8),
    "qwen_math_zero3": (8, 128, 8),
    "qwen_math_fsdp2": (8, 128, 8),
    "qwen_math_7b": (8, 128, 8),
    "qwen_math_server": (8, 128, 8),
    "qwen_math_ahead": (1, 128, 8),
    "qwen_code": (1, 64, 8),
    "qwen_judge": (1, 64, 8),
    "qwen_vision": (1, 32, 8),
}
by_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
by_gpu_recipe = pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem.startswith("qwen")], ids=lambda path: path.stem
)


def has_images(path):
    return "\nimage_column:" in path.read_text()


@pytest.fixture
def engines(monkeypatch):
    """Lets recipes be parsed whose engines are not installed."""
    monkeypatch.setattr(checks, "find_spec", lambda package: package)


def test_the_shipped_recipes_are_listed_here():
    assert {path.stem for path in RECIPES} == set(PLANS)


@by_recipe
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_parses_for_both_algorithms_with_its_processes(path, algorithm, engines, launched):
    ranks, completions, updates = PLANS[path.stem]
    launched(ranks)
    parsed = parse([str(path), "--algorithm", algorithm])
    args = parsed.training
    assert type(args).__name__ == {"gbpo": "GBPOConfig", "grpo": "BaseConfig"}[algorithm]
    assert parsed.run.algorithm == algorithm
    per_step = args.per_device_train_batch_size * ranks * args.gradient_accumulation_steps
    assert per_step == completions and per_step % args.num_generations == 0
    assert args.generation_batch_size * args.num_iterations / per_step == updates
    assert updates > 1, "with one update per generation no ratio reaches a bound"
    if args.save_strategy != "no":
        assert args.save_steps % updates == 0 and args.save_total_limit, (
            "checkpoints between generations, limited in number"
        )


@by_gpu_recipe
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_takes_the_same_optimiser_steps_on_any_number_of_gpus(path, ranks, engines, launched):
    _, completions, updates = PLANS[path.stem]
    launched(ranks)
    args = parse([str(path)]).training
    assert args.per_device_train_batch_size * ranks * args.gradient_accumulation_steps == completions
    assert args.updates_per_generation == updates


@by_gpu_recipe
def test_states_what_a_gpu_needs(path, engines):
    parsed = parse([str(path)])
    args = parsed.training
    longest = args.max_completion_length
    assert {"bf16", "activation_checkpointing", "optimizer_batch_size"} <= parsed.given
    assert parsed.model.attn_implementation == "auto" and args.bf16
    assert args.activation_checkpointing == parsed.model.load_in_4bit  # 24 GB hold no row of a 7B model without it
    assert (args.max_tokens_per_micro_batch is None) == has_images(path)  # images run in TRL's micro-batches
    assert has_images(path) or args.max_tokens_per_micro_batch >= longest
    assert args.use_vllm != parsed.model.load_in_4bit  # vLLM cannot take weights in 4 bits
    if args.use_vllm and args.vllm_mode == "colocate":
        assert {"vllm_mode", "vllm_gpu_memory_utilization"} <= parsed.given
        assert args.vllm_max_model_length > longest
    published = path.stem == "qwen_ttrl"
    assert (args.beta, args.entropy_coef) == ((0.001, 0.005) if published else (0.0, 0.0))
    assert args.target_baseline == ("median" if published else "exact")
    assert args.ratio_anchor == ("trainer" if published or not args.use_vllm else "sampler")


def speedups_of(parsed, attention, *, whole_model):
    """The speed-ups of a recipe on a model of its architecture without weights, with this attention."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(num_hidden_layers=1))
    model.config._attn_implementation = attention  # FlashAttention is not installed here
    if parsed.model.use_peft:
        model = get_peft_model(model, get_peft_config(parsed.model))
    return decide(
        parsed.training,
        model,
        bounded_loss=parsed.run.algorithm == "gbpo",
        whole_model=whole_model,
        has_images=parsed.run.image_column is not None,
    )


@by_gpu_recipe
def test_all_speedups_act_on_a_gpu(path, engines, launched):
    launched(PLANS[path.stem][0])
    if has_images(path):
        speedups = speedups_of(parse([str(path)]), "sdpa", whole_model=True)
        assert [name for name in SPEEDUPS if name in speedups] == ["skip_zero_signal"]
        return
    parsed, whole = parse([str(path)]), PLANS[path.stem][0] == 1
    flash, sdpa = (speedups_of(parsed, attention, whole_model=whole) for attention in ("flash_attention_2", "sdpa"))
    assert "pack_rows" in flash
    assert ("share_prompts" in sdpa) == whole
    in_generation_only = "activation checkpointing keeps no keys and values" if parsed.model.load_in_4bit else None
    assert not whole or sdpa.without_sharing_in_passes == in_generation_only
    for speedups in (flash, sdpa):
        assert {"trim_padding", "arrange_rows"} <= {name for name in SPEEDUPS if name in speedups}
        # one forward pass less: with vLLM's log-probs there is none for old log-probs
        assert ("reuse_first_pass" in speedups) == (parsed.training.ratio_anchor == "trainer")
        assert ("skip_zero_signal" in speedups) == (path.stem != "qwen_ttrl")  # every row has a KL term there


@by_gpu_recipe
def test_flags_in_the_header_can_be_used(path, engines, tmp_path):
    """`… --field value …    what it does`, where a line that ends with a backslash goes on in the next one."""
    header = path.read_text().split("\n\n")[0].replace("\\\n#     ", "")
    lines = re.findall(r"^#   … (.+?)   +\S", header, flags=re.M)
    assert len(lines) >= 2 and any("--algorithm grpo" in line for line in lines)
    for line in lines:
        parsed = parse([str(path), *shlex.split(line)])
        assert parsed.training.optimizer_batch_size == PLANS[path.stem][1]


@by_gpu_recipe
def test_a_row_of_the_baseline_fits_where_a_pass_fits(path, engines):
    """TRL's loss runs whole micro-batches, so the header gives GRPO fewer rows."""
    (line,) = re.findall(r"--algorithm grpo[^\n]*?(?=   )", path.read_text())
    baseline = parse([str(path), *shlex.split(line)]).training
    if has_images(path):  # GBPO runs TRL's micro-batches too
        assert baseline.per_device_train_batch_size <= parse([str(path)]).training.per_device_train_batch_size
        return
    window = baseline.vllm_max_model_length or 2560
    budget = parse([str(path)]).training.max_tokens_per_micro_batch
    assert baseline.per_device_train_batch_size * window <= budget or baseline.per_device_train_batch_size == 1


def test_resume_from_checkpoint_false_is_no_resume():
    flags = ["--resume_from_checkpoint", "False", "--sync_ref_model", "true"]  # refused together with a resume
    parsed = parse([str(ROOT / "recipes" / "tiny_math.yaml"), *flags])
    assert parsed.training.resume_from_checkpoint is None


@by_recipe
def test_header_gives_command_hardware_time_and_expected_result(path):
    header = [line for line in path.read_text().split("\n\n")[0].splitlines() if line.startswith("#")]
    text = "\n".join(header)
    command = re.search(rf"accelerate launch (--config_file (\S+) )?launch/gbpo.py recipes/{path.name}", text)
    assert command and bool(command[1]) == (PLANS[path.stem][0] > 1)
    assert f"gbpo train {path.stem}\n" in text or f"-m gbpo.run {path.stem}" in text  # these need no checkout
    assert "Hardware:" in text and "Time" in text and re.search("expect|result", text)
    assert len(header) >= 6
    if "save_steps" in path.read_text():
        assert "--resume_from_checkpoint auto" in text


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory):
    """Folder of a random Gemma 3 with the character tokenizer. Like the pretrained one, it has no chat template."""
    from gbpo.run.models.tiny import character_tokenizer

    tokenizer = character_tokenizer()
    tokenizer.chat_template = None
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("tiny_gemma")
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def programs_file(tmp_path_factory):
    """A JSONL file like MBPP, beside the module that the header of qwen_code.yaml makes."""
    path = tmp_path_factory.mktemp("data") / "mbpp.jsonl"
    rows = [
        {"text": f"Add {i}.", "test_list": [f"assert add(1) == {1 + i}", f"assert add(2) == {2 + i}"]}
        for i in range(32)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = (ROOT / "recipes" / "qwen_code.yaml").read_text()
    (module,) = re.findall(r"^#   printf '%s\\n' '(.*)' > mbpp.py$", header, re.MULTILINE)
    path.with_name("mbpp.py").write_text(module)
    return str(path)


@pytest.fixture(scope="session")
def judge_address():
    """Address of the judge that recipes/tiny_judge.yaml names."""
    with example_server.Server(("127.0.0.1", 0), example_server.Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="session")
def figures_file(tmp_path_factory):
    """A JSONL file like Geometry3K, with the paths of images. Some problems have two."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(8):
        pictures.picture(number).save(folder / f"{number}.png")
    rows = [
        {"problem": "<image>Find x." * (1 + i % 2), "answer": str(i), "images": [f"{i % 8}.png"] * (1 + i % 2)}
        for i in range(32)
    ]
    (folder / "figures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "figures.jsonl")


@pytest.mark.sweep
@by_recipe
def test_runs_two_steps_on_a_tiny_model(
    path,
    boxing_model,
    acting_model,
    tiny_gemma,
    vision_model,
    problems,
    programs_file,
    figures_file,
    judge_address,
    tmp_path,
    monkeypatch,
):
    """With a tiny model, other data and short completions, and without engines that need a GPU."""
    text = path.read_text()
    calls = "\ntools:" in text or "\nenvironment:" in text
    model = vision_model if has_images(path) else acting_model if calls else boxing_model
    model = tiny_gemma if "gemma" in path.stem else model
    flags = ["--model_name_or_path", model]
    if "\nimage_column: images" in text:
        flags += ["--dataset_name", figures_file, "--dataset_columns", "{problem: prompt, answer: solution}"]
    elif "\ndataset_columns: {problem:" in text:
        flags += ["--dataset_name", problems, "--dataset_columns", "{problem: prompt, answer: solution}"]
    if "\ndataset_extract: {prompt: mbpp.prompt}" in text:
        flags += ["--dataset_name", programs_file, "--dataset_train_split", "train"]
        monkeypatch.syspath_prepend(Path(programs_file).parent)
    if "reasoning_gym:" in text:  # not installed in the tests; the header of the recipe names this task
        flags += ["--dataset_name", "arithmetic", "--reward_funcs", "exact_match"]
    if "\nreward_funcs: [judge]" in text:
        options = parse_yaml(text)["reward_kwargs"]["judge"]
        options |= {"base_url": judge_address, "model": example_server.MODEL, "cache": str(tmp_path / "replies")}
        options |= {"scale": [0, 10]}
        flags += ["--dataset_name", "arithmetic", "--reward_kwargs", json.dumps({"judge": options})]
    for engine in ("use_vllm", "load_in_4bit"):
        if f"\n{engine}: true" in text:
            flags += [f"--{engine}", "false"]
    if "\nratio_anchor: sampler" in text:
        flags += ["--ratio_anchor", "trainer"]
    flags += "--max_steps 2 --logging_steps 1 --max_completion_length 16 --num_completions_to_print 0".split()
    flags += [
        "--exact_speedups",
        "trim_padding",
        "arrange_rows",
    ]  # an untrained model gets no reward, so all rows would be skipped
    train.main([str(path), *flags, "--output_dir", str(tmp_path / "run")])
    rows = read_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) and "gbpo/overshoot" in row
    adapter = (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
    assert adapter == ("use_peft: true" in text)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file() == (not adapter)


def read_rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_qwen_math_with_its_own_settings(boxing_model, problems, tmp_path, algorithm):
    """Only the model, the data file, the generator and the number of steps are overridden."""
    printed = processes.run_script(
        ROOT / "launch" / "gbpo.py",
        ROOT / "recipes" / "qwen_math.yaml",
        *("--model_name_or_path", boxing_model),
        *("--dataset_name", problems, "--dataset_columns", "{problem: prompt, answer: solution}"),
        *("--use_vllm", "false", "--ratio_anchor", "trainer", "--max_steps", 8, "--algorithm", algorithm),
        cwd=tmp_path,
    )
    folder = tmp_path / "runs" / "qwen_math"
    rows = read_rows(folder)
    assert [row["step"] for row in rows] == [8]
    for row in rows:
        for name in ("loss", "reward", "entropy", "completions/mean_length"):
            assert math.isfinite(row[name])
        assert ("gbpo/ratio_error" in row) == (algorithm == "gbpo")
        assert 0 < row["reward"] < 1  # the maths reward graded some digits as correct
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["algorithm"] == algorithm
    assert config["training"]["epsilon"] == 0.3 and config["training"]["num_iterations"] == 2
    assert config["training"]["bf16"] and config["training"]["gradient_accumulation_steps"] == 16  # 128 / 8
    assert config["model"]["attn_implementation"] == "sdpa"
    assert config["model"]["model_name_or_path"] == boxing_model
    assert set(config) >= {"git_revision", "versions", "command", "recipe", "gbpo"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "model")
    assert model.num_parameters() > 1e5
    samples = pandas.concat(map(pandas.read_parquet, sorted((folder / "completions").glob("*.parquet"))))
    assert {"prompt", "completion", "math", "advantage", "math/status"} <= set(samples.columns)
    last = printed.strip().splitlines()[-1]
    assert last.startswith("qwen_math: reward 0.") and last.endswith("runs/qwen_math")
    for name in ("curves.png", "metrics.jsonl", "rollouts", "model"):
        assert str(Path("runs/qwen_math") / name) in printed


def parse_text(tmp_path, text, *flags):
    (tmp_path / "own.yaml").write_text(f"model_name_or_path: builtin:tiny_math\ndataset_name: arithmetic\n{text}\n")
    return parse([str(tmp_path / "own.yaml"), "--output_dir", str(tmp_path / "run"), *flags])


AFTER_HASHES = {"solution": "after ####"}
VALUES = {
    "number that PyYAML reads as text": ("learning_rate: 1e-6", "training", "learning_rate", 1e-6),
    "whole number for a float": ("temperature: 2", "training", "temperature", 2.0),
    "number for a text": ("system_prompt: 3", "run", "system_prompt", "3"),
    "negative number": ("max_steps: -1", "training", "max_steps", -1),
    "word for a switch": ("log_completions: 'yes'", "training", "log_completions", True),
    "one word for a list": ("reward_funcs: math", "run", "reward_funcs", ["math"]),
    "list": ("reward_funcs: [math, length]", "run", "reward_funcs", ["math", "length"]),
    "list of numbers": ("reward_weights: [1, 5e-1]", "training", "reward_weights", [1.0, 0.5]),
    "mapping": ("dataset_kwargs: {size: 9}", "run", "dataset_kwargs", {"size": 9}),
    "small number in a mapping": (
        "reward_kwargs: {code: {tol: 1e-6}}",
        "run",
        "reward_kwargs",
        {"code": {"tol": 1e-6}},
    ),
    "name like a number": ("dataset_kwargs: {name: 1e5}", "run", "dataset_kwargs", {"name": "1e5"}),
    "mapping as JSON": ("dataset_kwargs: '{\"size\": 9}'", "run", "dataset_kwargs", {"size": 9}),
    "marker of hashes": ("dataset_extract: {solution: after ####}", "run", "dataset_extract", AFTER_HASHES),
    "marker in a block": ("dataset_extract:\n  solution: after ####  ", "run", "dataset_extract", AFTER_HASHES),
    "marker in quotes": ('dataset_extract: {solution: "after ####"}', "run", "dataset_extract", AFTER_HASHES),
    "marker in text": ("dataset_extract: '{solution: after ####}'", "run", "dataset_extract", AFTER_HASHES),
    "mapping of the trainer": ("generation_kwargs: {min_p: 0.1}", "training", "generation_kwargs", {"min_p": 0.1}),
    "null": ("system_prompt: null", "run", "system_prompt", None),
    "hyphens": ("learning-rate: 0.5", "training", "learning_rate", 0.5),
    "resume": ("resume_from_checkpoint: true", "training", "resume_from_checkpoint", "true"),
}


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_an_adapter_has_no_dropout_unless_it_is_given(tmp_path, algorithm):
    text = f"use_peft: true\nalgorithm: {algorithm}"
    parsed = parse_text(tmp_path, text)
    assert get_peft_config(parsed.model).lora_dropout == 0 and "lora_dropout" not in parsed.given
    assert get_peft_config(parse_text(tmp_path, f"{text}\nlora_dropout: 0.05").model).lora_dropout == 0.05
    assert parse_text(tmp_path, text, "--lora_dropout", "0.1").model.lora_dropout == 0.1


LISTS = {
    "reward_weights": ("[1.0, 0]", "training", [1.0, 0.0]),
    "reward_funcs": ("[math, 'length']", "run", ["math", "length"]),
    "exact_speedups": ("[]", "training", []),
    "lora_target_modules": ('["q_proj", "v_proj"]', "model", ["q_proj", "v_proj"]),
    "report_to": ("[tensorboard]", "training", ["tensorboard"]),  # TRL's type is a text or a list
    "optim_target_modules": ("[q_proj]", "training", ["q_proj"]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_written_alike_in_a_recipe_and_on_the_command_line(tmp_path, name):
    text, part, expected = LISTS[name]
    as_text = "'" + text.replace("'", "''") + "'"
    for line, flags in ((f"{name}: {text}", []), (f"{name}: {as_text}", []), ("", [f"--{name}", text])):
        assert getattr(getattr(parse_text(tmp_path, f"{line}\nuse_peft: true", *flags), part), name) == expected


def test_a_list_without_its_end_is_one_line(tmp_path):
    for line, flags in (("reward_weights: '[1.0'", []), ("", ["--reward_weights", "[1.0"])):
        with pytest.raises(ValueError, match=r"reward_weights.*'\[1\.0' is not a list, write \[value, value\]"):
            parse_text(tmp_path, line, *flags)


def test_fsdp_is_a_switch_and_takes_the_names_of_earlier_versions(tmp_path, launched):
    launched(2)
    for text in ("true", "full_shard", "false"):
        for line, flags in ((f"fsdp: {text}", []), ("", ["--fsdp", text])):
            args = parse_text(tmp_path, line, *flags).training
            assert args.fsdp is (text != "false") and bool(args.fsdp_plugin_args) == args.fsdp


@pytest.mark.parametrize("case", VALUES)
def test_values_of_a_recipe_get_the_type_of_their_field(tmp_path, case):
    text, part, name, expected = VALUES[case]
    parsed = parse_text(tmp_path, text)
    value = getattr(getattr(parsed, part), name)
    assert value == expected and type(value) is type(expected)
    assert (name in parsed.given) == (expected is not None)


def test_the_command_line_overrides_the_recipe(tmp_path):
    flags = ["--learning-rate", "1e-5", "--generation_kwargs", "{min_p: 0.2}", "--no_shuffle_dataset", "--beta=0"]
    text = "learning_rate: 1e-6\ngeneration_kwargs: {min_p: 0.1}\nbeta: 0.5\ndataset_kwargs: {size: 7}"
    parsed = parse_text(tmp_path, text, *flags)
    args = parsed.training
    assert (args.learning_rate, args.generation_kwargs, args.beta) == (1e-5, {"min_p": 0.2}, 0.0)
    assert args.shuffle_dataset is False and "shuffle_dataset" in parsed.given
    assert parsed.run.dataset_kwargs == {"size": 7}
    assert parse_text(tmp_path, text, "--dataset_name", "programs").run.dataset_kwargs == {}


def test_a_file_may_be_trained_on_with_the_split_of_a_hub_set_to_evaluate_on(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"prompt": "1+1=", "solution": "2"}\n')
    text = f"dataset_train_split: test\neval_strategy: steps\ndataset_name: {tmp_path / 'train.jsonl'}"
    (tmp_path / "own.yaml").write_text(f"model_name_or_path: builtin:tiny_math\n{text}\n")
    assert parse([str(tmp_path / "own.yaml"), "--eval_dataset_name", "some/set"]).run.dataset_train_split == "test"


def test_an_infinite_norm_clips_no_gradient(tmp_path):
    assert parse_text(tmp_path, "max_grad_norm: .inf").training.max_grad_norm == float("inf")


def test_a_former_field_is_refused_with_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setitem(checks.RENAMED, "former_field", "former_field is now new_field: write new_field: 3.")
    for text, flags in (("former_field: 3", []), ("", ["--former_field", "3"]), ("", ["--former-field=3"])):
        with pytest.raises(ValueError, match=r"^former_field is now new_field: write new_field: 3\.$"):
            parse_text(tmp_path, text, *flags)


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("lr", "learning_rate"),
        ("clip_ratio", "epsilon"),
        ("dataset", "dataset_name"),
        ("output", "output_dir"),
        ("learning_rat", "learning_rate"),
        ("torch_dtype", "dtype"),
        ("no_cuda", "use_cpu"),
        ("reward_model_name_or_path", "reward_funcs"),
    ],
)
def test_an_unknown_field_is_refused_with_the_field_that_is_meant(tmp_path, unknown, meant):
    with pytest.raises(ValueError, match=f"Unknown field '{unknown}'.*Did you mean '{meant}'"):
        parse_text(tmp_path, f"{unknown}: 1")


def test_the_names_of_other_trainers_lead_to_fields_and_are_no_fields(tmp_path):
    kinds = (RunArguments, GBPOConfig, ModelConfig)
    assert set(checks.OTHER_NAMES.values()) <= {field.name for kind in kinds for field in fields(kind)}
    for name in checks.OTHER_NAMES:
        with pytest.raises(ValueError, match=f"Unknown field '{name}'"):
            parse_text(tmp_path, f"{name}: 1")


def test_the_speed_switches_are_names_in_exact_speedups():
    switches = ["trim_padding", "arrange_rows", "skip_zero_signal", "pack_rows", "share_prompts", "reuse_first_pass"]
    assert set(switches) <= set(checks.RENAMED)
    assert checks.RENAMED["trim_padding"] == (
        "trim_padding is now a name in exact_speedups: write exact_speedups: none, or list the speed-ups to keep: "
        "exact_speedups: [arrange_rows, skip_zero_signal, pack_rows, share_prompts, reuse_first_pass]."
    )
