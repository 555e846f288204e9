"""Bad input ends with status 2 and one line with the value and the fix. No model is loaded and no file is written."""

import json
from pathlib import Path

import pytest

from templates import NO_SYSTEM

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")
NO_STEPS = "no_steps.yaml"  # tiny_math without steps_per_generation
MATHS = ["--dataset_columns", "{problem: prompt, answer: solution}"]

QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
}
FILES = {
    "good.jsonl": '{"problem": "1+1=", "answer": "2"}\n' * 40,
    "pictures.jsonl": '{"problem": "1+1=", "answer": "2", "image": "x.png"}\n' * 40,
    "few.jsonl": '{"problem": "1+1=", "answer": "2"}\n' * 3,
    "empty.jsonl": "",
    "blank.jsonl": "\n\n",
    "header.csv": "problem,answer\n",
    "broken.jsonl": "problem: 1+1=\n",
    "hole.jsonl": '{"problem": "1+1=", "answer": "2"}\n{"problem": null, "answer": "2"}\n' * 40,
    "bad_references.jsonl": '{"problem": "1+1=", "answer": "?"}\n{"problem": "1+2=", "answer": "3"}\n' * 20,
    "typo.yaml": "model_name_or_path: builtin:tiny_math\ndataset_name: arithmetic\nlearning_rat: 1.0e-6\n",
    "list.yaml": "- 1\n- 2\n",
    "broken.yaml": "a: [1\nb: 2",
    "backspace.yaml": 'dataset_name: arithmetic\nsystem_prompt: "Write \\boxed{}."\n',
    "cut.yaml": "seed: 1\nsystem_prompt: End with #### and the answer\n",
    "one_by_one.py": "def score(completion, **_): return [1.0]\n",
    "class_that_fails.py": "class Reward:\n    def __init__(self): raise RuntimeError('no key')\n"
    "    def __call__(self, completions, **_): return [1.0] * len(completions)\n",
    "role.jsonl": '{"prompt": [{"role": null, "content": "1+1="}], "solution": "2"}\n' * 40,
    "unlike.jsonl": '{"prompt": "1+2=", "answer": "3"}\n' * 40,
    "unanswered.jsonl": '{"prompt": "1+2=", "solution": null}\n' * 40,
    "other/config.json": "{}",
    "checkpoint-4/trainer_state.json": "{}",
    "braces.yaml": "seed: 1\nsystem_prompt: {{prompt}}\n",
    "colon.yaml": "seed: 1\nsystem_prompt: Answer: yes\n",
    "data.txt": "1+1=2",
    "rewards_that_fail.py": ""
    "def fails(completions, **_): return [1 / len(one[-1]['content'].strip('0')) for one in completions]\n"
    "def text(completions, **_): return ['1.0'] * len(completions)\n",
    "same_name.py": "def exact_match(completions, **_): return [0.0] * len(completions)\n",
    "module_with_reward.py": "value = 3\ndef reward(completions, proof, **kwargs):\n    return [1.0]\n",
    "done/config.json": "{}",
    "done/metrics.jsonl": '{"step": 1}\n',
    "weights/readme.txt": "no model here",
    "twice.yaml": "model_name_or_path: builtin:tiny_math\nlearning_rate: 1.0e-6\nlearning_rate: 1.0e-5\n",
    "twice_inside.yaml": "dataset_name: arithmetic\ndataset_kwargs: {seed: 0, size: 9, seed: 1}\n",
    "tab.yaml": "dataset_name: arithmetic\ndataset_kwargs:\n\tsize: 9\n",
    "number_key.yaml": "dataset_name: arithmetic\n3: 4\n",
    "nested.yaml": "dataset_name: arithmetic\ntraining: {learning_rate: 1.0e-6}\n",
    "system_mapping.yaml": "dataset_name: arithmetic\nsystem_prompt: {role: system}\n",
    "rate_list.yaml": "dataset_name: arithmetic\nlearning_rate: [1.0e-6, 1.0e-5]\n",
    "binary.yaml": "\x00\x01",
    "open.jinja": "{% for message in messages %}{{ message.content }}",
    "silent.jinja": "{{ messages[0].text.upper() }}",
    "empty.jinja": "",
    "strict.jinja": NO_SYSTEM,
    "chats.jsonl": "".join(
        json.dumps({"prompt": [{"role": role, "content": "1+1="} for role in roles], "solution": "2"}) + "\n"
        for roles in (["user"], ["system", "user"])
    ),
    "conversation.jsonl": '{"prompt": [{"role": "user"}], "solution": "2"}\n' * 40,
    "numbers.jsonl": '{"prompt": 3, "solution": "2"}\n' * 40,
    "bert/config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}',
    "t5/config.json": '{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64}',
    "no_tokenizer/config.json": json.dumps(QWEN2),
    "unknown_model/config.json": '{"model_type": "gpt99"}',
    "broken_model/config.json": "{",
    "ds.json": "{not json",
    "columns_list.yaml": "dataset_name: good.jsonl\ndataset_columns: [problem: prompt]\n",
    "hashes.yaml": "dataset_name: good.jsonl\ndataset_extract: {solution: after # Answer}\n",
    "parts.jsonl": '{"prompt": [{"role": "user", "content": [{"type": "image", "text": "x.png"}]}], "solution": "2"}\n',
    "only_answers.jsonl": '{"prompt": [{"role": "assistant", "content": "2"}], "solution": "2"}\n' * 40,
}

# arguments → words that the line must contain: the given value and the fix
CASES = {
    "no recipe": ([], ["RECIPE"]),
    "missing recipe": (["nowhere.yaml"], ["nowhere.yaml", "path"]),
    "recipe is a list": (["list.yaml"], ["list.yaml", "field: value"]),
    "recipe is not YAML": (["broken.yaml"], ["broken.yaml", "YAML", "line 1: ", "line 2: "]),
    "a lost backslash": (["backspace.yaml"], ["system_prompt", r"'\x08'", "Write single quotes"]),
    "a prompt template with two braces": (
        [TINY, "--prompt_template", "Q: {{prompt}} A:"],
        ["'Q: {{prompt}} A:'", "two braces", "Write {prompt}"],
    ),
    "a chat template as JSON": ([TINY, "--chat_template_path", "ds.json"], ["'ds.json'", "is JSON", "a Jinja file"]),
    "a prompt that is cut": (["cut.yaml"], ["'#### and the answer'", "system_prompt", "in quotes"]),
    "own reward for one completion": (
        [TINY, "--reward_funcs", "one_by_one.score"],
        ["'one_by_one.score'", "'completion'", "Write completions"],
    ),
    "own reward whose class fails": (
        [TINY, "--reward_funcs", "class_that_fails.Reward"],
        ["'class_that_fails.Reward'", "RuntimeError: no key", "Correct the class"],
    ),
    "a package of gbpo as own reward": ([TINY, "--reward_funcs", "rewards.mine"], ["'rewards'", "gbpo has a module"]),
    "own reward in a module of a package of gbpo": (
        [TINY, "--reward_funcs", "rewards.mine.score"],
        ["'rewards.mine'", "another name, such as my_rewards"],
    ),
    "no role": ([TINY, "--dataset_name", "role.jsonl"], ["Row 0", "the role None", "user"]),
    "no solution column in the evaluation set": (
        [TINY, "--eval_strategy", "steps", "--eval_dataset_name", "unlike.jsonl"],
        ["exact_match", "'solution'", "'unlike.jsonl' has prompt, answer"],
    ),
    "evaluation set without answers": (
        [TINY, "--eval_strategy", "steps", "--eval_dataset_name", "unanswered.jsonl"],
        ["In the evaluation set: ", "40 of 40", "no_gold"],
    ),
    "a part of a file": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--dataset_train_split", "train[:10%]"],
        ["'train[:10%]'", "would be ignored", "good.jsonl"],
    ),
    "a split of a file": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--dataset_train_split", "validation"],
        ["dataset_train_split='validation' would be ignored", "'good.jsonl' is a file"],
    ),
    "a configuration of a file": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--dataset_config", "main"],
        ["dataset_config='main'", "would be ignored"],
    ),
    "a checkpoint of another run": (
        [TINY, "--output_dir", "other", "--resume_from_checkpoint", "checkpoint-4"],
        ["'other' holds another run", "'checkpoint-4'", "new folder"],
    ),
    "braces without quotes": (["braces.yaml"], ["braces.yaml", "line 2: ", "in quotes"]),
    "a colon without quotes": (["colon.yaml"], ["colon.yaml", "line 2: ", "in quotes"]),
    "unknown key in the recipe": (["typo.yaml"], ["learning_rat", "learning_rate"]),
    "unknown key on the command line": ([TINY, "--target_baselin", "exact"], ["target_baselin", "target_baseline"]),
    "abbreviated key": ([TINY, "--num_iter", "4"], ["num_iter", "num_iterations"]),
    "stray word": ([TINY, "and"], ["'and' follows the recipe"]),
    "a field without dashes": ([TINY, "--seed", "3", "epsilon", "0.1"], ["'epsilon' has no dashes", "Write --epsilon"]),
    "a field with its value without dashes": ([TINY, "learning-rate=1e-6"], ["Write --learning-rate=1e-6"]),
    "not a number": ([TINY, "--learning_rate", "fast"], ["learning_rate", "fast"]),
    "not a mapping": ([TINY, "--dataset_columns", "problem"], ["dataset_columns", "problem", "key: value"]),
    "unknown algorithm": ([TINY, "--algorithm", "ppo"], ["ppo", "gbpo, grpo"]),
    "missing file": ([TINY, "--dataset_name", "nowhere.jsonl"], ["nowhere.jsonl", "path"]),
    "other file": ([TINY, "--dataset_name", "data.txt"], ["data.txt", ".jsonl"]),
    "broken file": ([TINY, "--dataset_name", "broken.jsonl"], ["broken.jsonl", "JSON"]),
    "zero bytes": ([TINY, "--dataset_name", "empty.jsonl"], ["empty.jsonl", "zero rows"]),
    "zero rows, JSONL": ([TINY, "--dataset_name", "blank.jsonl"], ["blank.jsonl", "zero rows"]),
    "zero rows, CSV": ([TINY, "--dataset_name", "header.csv"], ["header.csv", "zero rows"]),
    "zero rows, generated": ([TINY, "--dataset_kwargs", "{size: 0}"], ["arithmetic", "zero rows"]),
    "too few rows": ([TINY, "--dataset_name", "few.jsonl", *MATHS], ["few.jsonl", "3 prompts", "24"]),
    "prompt missing in a row": ([TINY, "--dataset_name", "hole.jsonl", *MATHS], ["Row 1", "None"]),
    "no prompt column": ([TINY, "--dataset_name", "good.jsonl"], ["prompt", "problem, answer", "dataset_columns"]),
    "wrong column": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{question: prompt}"],
        ["question", "problem, answer"],
    ),
    "no solution column": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{problem: prompt}"],
        ["exact_match", "solution", "answer"],
    ),
    "wrong argument of a task": ([TINY, "--dataset_kwargs", "{sise: 9}"], ["sise", "arithmetic"]),
    "unknown reward": ([TINY, "--reward_funcs", "exact_mach"], ["exact_mach", "exact_match"]),
    "recipe is a folder": (["weights"], ["weights is a folder"]),
    "no reward": (["no_reward.yaml"], ["reward_funcs"]),
    "reward module missing": ([TINY, "--reward_funcs", "no_such_module.reward"], ["no_such_module"]),
    "reward is not a function": ([TINY, "--reward_funcs", "module_with_reward.value"], ["value"]),
    "own reward, column missing": (
        [TINY, "--reward_funcs", "module_with_reward.reward"],
        ["proof", "prompt, solution"],
    ),
    "a reward twice": (
        [TINY, "--reward_funcs", "exact_match", "boxed", "exact_match"],
        ["'exact_match' more than once", "count once", "reward_weights"],
    ),
    "two rewards of one name": (
        [TINY, "--reward_funcs", "exact_match", "same_name.exact_match"],
        ["Two rewards", "'exact_match'", "rewards/exact_match/mean", "Rename"],
    ),
    "own reward that raises": (
        [TINY, "--reward_funcs", "rewards_that_fail.fails"],
        ["'rewards_that_fail.fails' raised ZeroDivisionError", "rewards_that_fail.py, line 1", "Correct the reward"],
    ),
    "own reward that returns text": (
        [TINY, "--reward_funcs", "exact_match", "rewards_that_fail.text"],
        ["'rewards_that_fail.text' returned", "'1.0'", "one finite number or None for each"],
    ),
    "unknown reward option": ([TINY, "--reward_kwargs", "{exact_match: {strict: true}}"], ["strict", "exact_match"]),
    "reference answers that do not parse": (
        [TINY, "--dataset_name", "bad_references.jsonl", *MATHS, "--reward_funcs", "math"],
        ["20 of 40 rows", "'math'", "row 0: no_gold", "rewards.check"],
    ),
    "votes that are not a multiple of the group": (
        [TINY, "--reward_funcs", "majority_vote", "--reward_kwargs", "{majority_vote: {votes: 20, boxed: false}}"],
        ["votes=20", "num_generations=8", "votes=16"],
    ),
    "unknown layer of the sandbox": (
        [TINY, "--reward_funcs", "code", "--reward_kwargs", "{code: {allow_missing: [netwrk]}}"],
        ["netwrk", "network"],
    ),
    "options of an absent reward": ([TINY, "--reward_kwargs", "{math: {}}"], ["math", "reward_funcs"]),
    "group of one": ([TINY, "--num_generations", "1"], ["num_generations=1", "2"]),
    "indivisible batch": ([TINY, "--num_generations", "7"], ["7", "256", "num_generations=8"]),
    "epsilon too large": ([TINY, "--epsilon", "1.5"], ["1.5", "(0, 1]"]),
    "epsilon zero": ([TINY, "--epsilon", "0"], ["0", "(0, 1]"]),
    "epsilon_high negative": ([TINY, "--epsilon_high", "-0.1"], ["-0.1", "positive"]),
    "foreign loss": ([TINY, "--loss_type", "sapo"], ["sapo", "dapo"]),
    "unknown builtin": ([TINY, "--model_name_or_path", "builtin:huge"], ["builtin:huge", "builtin:tiny_math"]),
    "missing model folder": ([TINY, "--model_name_or_path", "./nowhere"], ["./nowhere", "config.json"]),
    "folder without a model": ([TINY, "--model_name_or_path", "weights"], ["weights"]),
    "unreachable model": ([TINY, "--model_name_or_path", "nobody/nothing"], ["nobody/nothing", "local folder"]),
    "unreachable data set": ([TINY, "--dataset_name", "nobody/nothing"], ["nobody/nothing", "local file"]),
    "template without {prompt}": ([TINY, "--prompt_template", "Solve it."], ["Solve it.", "{prompt}"]),
    "folder of another run": ([TINY, "--output_dir", "done"], ["done", "config.json", "Give another folder."]),
    "resume without a folder": ([TINY, "--resume_from_checkpoint", "true"], ["--output_dir"]),
    "resume from an empty folder": (
        [TINY, "--output_dir", "weights", "--resume_from_checkpoint", "true"],
        ["weights", "checkpoint"],
    ),
    "evaluation on one file": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--eval_strategy", "steps"],
        ["good.jsonl", "eval_dataset_name"],
    ),
    "missing evaluation file": (
        [TINY, "--eval_strategy", "steps", "--eval_steps", "5", "--eval_dataset_name", "nowhere.jsonl"],
        ["eval_dataset_name='nowhere.jsonl'", "not found"],
    ),
    "evaluation file without evaluation": (
        [TINY, "--eval_dataset_name", "good.jsonl"],
        ["eval_dataset_name", "eval_strategy"],
    ),
    "missing chat template": ([TINY, "--chat_template_path", "nowhere.jinja"], ["nowhere.jinja"]),
}

LORA = ["--use_peft", "true"]
CASES |= {
    # the recipe file
    "field twice": (["twice.yaml"], ["learning_rate", "twice", "line 3"]),
    "key twice inside a mapping": (["twice_inside.yaml"], ["seed", "twice", "line 2"]),
    "tab": (["tab.yaml"], ["tab.yaml", "line 3", "indent with spaces"]),
    "number as a field name": (["number_key.yaml"], ["3"]),
    "section": (["nested.yaml"], ["training"]),
    "binary file": (["binary.yaml"], ["binary.yaml", "YAML"]),
    "folder": (["weights"], ["weights", "YAML"]),
    "recipe without model": ([TINY, "--model_name_or_path", ""], ["model_name_or_path"]),
    # types
    "list for a scalar": ([TINY, "--learning_rate", "[1, 2]"], ["learning_rate", "[1, 2]"]),
    "two values for a scalar": ([TINY, "--learning_rate", "1e-5", "1e-6"], ["1e-6"]),
    "mapping for a scalar": ([TINY, "--epsilon", "{low: 0.1}"], ["epsilon", "{low: 0.1}"]),
    "fraction for a whole number": ([TINY, "--num_generations", "8.5"], ["num_generations", "8.5"]),
    "word for a whole number": ([TINY, "--max_steps", "many"], ["max_steps", "many"]),
    "comma in a number": ([TINY, "--learning_rate", "1,0e-6"], ["learning_rate", "1,0e-6"]),
    "word for a boolean": ([TINY, "--bf16", "maybe"], ["bf16", "maybe"]),
    "word for a seed": ([TINY, "--seed", "random"], ["seed", "random"]),
    "negative seed": ([TINY, "--seed", "-1"], ["seed=-1", "[0, 4294967295]"]),
    "huge seed": ([TINY, "--seed", "4294967296"], ["seed=4294967296"]),
    "mapping for model_init_kwargs": ([TINY, "--model_init_kwargs", "fast"], ["model_init_kwargs", "fast"]),
    "unknown model_init_kwargs": (
        [TINY, "--model_init_kwargs", "{attn_implementatoin: eager}"],
        ["model_init_kwargs", "attn_implementatoin", "'attn_implementation'"],
    ),
    "unknown type of weights": ([TINY, "--model_init_kwargs", "{dtype: float8}"], ["float8", "bfloat16"]),
    "another width than the checkpoint's": (
        [TINY, "--model_init_kwargs", "{intermediate_size: 80}"],
        ["intermediate_size", "80", "model.layers.0.mlp.gate_proj.weight"],
    ),
    "more layers than the checkpoint's": (
        [TINY, "--model_init_kwargs", "{num_hidden_layers: 7}"],
        ["num_hidden_layers", "7"],
    ),
    "an LM head that the checkpoint does not have": (
        [TINY, "--model_init_kwargs", "{tie_word_embeddings: false}"],
        ["tie_word_embeddings", "lm_head.weight", "random"],
    ),
    "word for a width": ([TINY, "--model_init_kwargs", "{hidden_size: wide}"], ["hidden_size", "wide"]),
    "no attention heads": ([TINY, "--model_init_kwargs", "{num_attention_heads: 0}"], ["num_attention_heads", "0"]),
    "list for dataset_kwargs": ([TINY, "--dataset_kwargs", "[1]"], ["dataset_kwargs", "[1]"]),
    "mapping for the system prompt": (["system_mapping.yaml"], ["system_prompt", "role", "mapping"]),
    "list for the learning rate": (["rate_list.yaml"], ["learning_rate", "[1e-06, 1e-05]", "list"]),
    # the optimiser and the length of the run
    "learning rate negative": ([TINY, "--learning_rate", "-1e-6"], ["learning_rate=-1e-06", "(0, 1]"]),
    "learning rate zero": ([TINY, "--learning_rate", "0"], ["learning_rate=0.0", "(0, 1]"]),
    "learning rate not finite": ([TINY, "--learning_rate", "nan"], ["learning_rate=nan"]),
    "max_steps zero": ([TINY, "--max_steps", "0"], ["max_steps=0", "num_train_epochs"]),
    "max_steps negative": ([TINY, "--max_steps", "-5"], ["max_steps=-5 would be ignored", "num_train_epochs"]),
    "epochs zero": ([TINY, "--max_steps", "-1", "--num_train_epochs", "0"], ["num_train_epochs=0"]),
    "unknown schedule": ([TINY, "--lr_scheduler_type", "cosin"], ["lr_scheduler_type", "cosin", "cosine"]),
    "unknown optimiser": ([TINY, "--optim", "adam"], ["optim", "adam", "adamw_torch"]),
    "optimiser not installed": ([TINY, "--optim", "adamw_8bit"], ["optim", "adamw_8bit", "pip install bitsandbytes"]),
    "warm-up negative": ([TINY, "--warmup_steps", "-3"], ["warmup_steps", "-3"]),
    "gradient norm negative": ([TINY, "--max_grad_norm", "-1"], ["max_grad_norm=-1"]),
    "weight decay negative": ([TINY, "--weight_decay", "-1"], ["weight_decay=-1"]),
    "bf16 and fp16": ([TINY, "--bf16", "true", "--fp16", "true"], ["bf16", "fp16"]),
    "fp16 on the CPU": ([TINY, "--fp16", "true"], ["fp16", "CPU"]),
    "options of another schedule": (
        [TINY, "--lr_scheduler_type", "linear", "--lr_scheduler_kwargs", "{num_cycles: 2}"],
        ["lr_scheduler_kwargs={'num_cycles': 2}", "lr_scheduler_type", "num_cycles'. Correct"],
    ),
    "schedule without its options": (
        [TINY, "--lr_scheduler_type", "cosine_with_min_lr"],
        ["lr_scheduler_kwargs", "cosine_with_min_lr", "min_lr_rate"],
    ),
    "options of a schedule that has none": (
        [TINY, "--lr_scheduler_type", "constant_with_warmup", "--lr_scheduler_kwargs", "{num_warmup_steps: 9}"],
        ["lr_scheduler_kwargs={'num_warmup_steps': 9} would be ignored", "'constant_with_warmup'", "warmup_steps sets"],
    ),
    # the batch
    "batch zero": ([TINY, "--per_device_train_batch_size", "0"], ["per_device_train_batch_size=0", "1"]),
    "accumulation zero": ([TINY, "--gradient_accumulation_steps", "0"], ["gradient_accumulation_steps=0"]),
    "optimiser batch zero": ([TINY, "--optimizer_batch_size", "0"], ["optimizer_batch_size=0", "=128"]),
    "optimiser batch that does not split": (
        [TINY, "--optimizer_batch_size", "100"],
        ["optimizer_batch_size=100", "per_device_train_batch_size=100", "optimizer_batch_size=128"],
    ),
    "optimiser step given in two ways": (
        [TINY, "--optimizer_batch_size", "128", "--gradient_accumulation_steps", "1"],
        ["optimizer_batch_size=128", "gradient_accumulation_steps=1", "alone"],
    ),
    "steps_per_generation zero": ([TINY, "--steps_per_generation", "0"], ["steps_per_generation=0"]),
    "iterations zero": ([TINY, "--num_iterations", "0"], ["num_iterations=0", "1"]),
    "generation batch given in two ways": (
        [TINY, "--generation_batch_size", "256"],
        ["generation_batch_size", "steps_per_generation", "256", "2"],
    ),
    "generation batch and micro-batch": (
        [NO_STEPS, "--generation_batch_size", "200"],
        ["generation_batch_size", "200", "128"],
    ),
    "automatic batch size": ([TINY, "--auto_find_batch_size", "true"], ["auto_find_batch_size"]),
    "evaluation batch that does not divide": (
        [TINY, "--eval_strategy", "steps", "--eval_steps", "5", "--per_device_eval_batch_size", "12"],
        ["per_device_eval_batch_size", "12", "8"],
    ),
    "evaluation misspelled": ([TINY, "--eval_strategy", "step"], ["eval_strategy", "step", "steps"]),
    "evaluation every 0 steps": (
        [TINY, "--eval_strategy", "steps", "--eval_steps", "0"],
        ["eval_steps=0", "replaced by logging_steps", "remove eval_steps"],
    ),
    "evaluation every -1 steps": ([TINY, "--eval_strategy", "steps", "--eval_steps", "-1"], ["eval_steps=-1"]),
    "saving misspelled": ([TINY, "--save_strategy", "epochs"], ["save_strategy", "epochs", "epoch"]),
    "saving every 0 steps": ([TINY, "--save_strategy", "steps", "--save_steps", "0"], ["save_steps=0"]),
    "logging every 0 steps": ([TINY, "--logging_steps", "0"], ["logging_steps"]),
    "logging never": ([TINY, "--logging_steps", "inf"], ["logging_steps=inf", "not finite"]),
    "saving the best without evaluation": (
        [TINY, "--save_strategy", "best", "--metric_for_best_model", "reward"],
        ["save_strategy='best'", "eval_strategy='no'", "eval_strategy: steps"],
    ),
    "saving the best without a metric": (
        [TINY, "--save_strategy", "best", "--eval_strategy", "steps", "--eval_steps", "5"],
        ["save_strategy='best'", "metric_for_best_model=None", "metric_for_best_model: eval_reward"],
    ),
    "best model without evaluation": ([TINY, "--load_best_model_at_end", "true"], ["load_best_model_at_end"]),
    # sampling and the loss
    "temperature zero": ([TINY, "--temperature", "0"], ["temperature=0.0", "positive"]),
    "temperature negative": ([TINY, "--temperature", "-1"], ["temperature=-1", "positive"]),
    "temperature infinite": ([TINY, "--temperature", "inf"], ["temperature=inf", "not finite"]),
    "top_p above 1": ([TINY, "--top_p", "1.5"], ["top_p=1.5", "(0, 1]"]),
    "top_k negative": ([TINY, "--top_k", "-2"], ["top_k=-2"]),
    "min_p above 1": ([TINY, "--min_p", "3"], ["min_p=3"]),
    "repetition penalty zero": ([TINY, "--repetition_penalty", "0"], ["repetition_penalty=0"]),
    "completions of length 0": ([TINY, "--max_completion_length", "0"], ["max_completion_length=0", "1"]),
    "beta negative": ([TINY, "--beta", "-0.1"], ["beta=-0.1", "0"]),
    "unknown generation option": ([TINY, "--generation_kwargs", "{tempature: 1}"], ["generation_kwargs", "tempature"]),
    "unknown scale of the rewards": ([TINY, "--scale_rewards", "std"], ["scale_rewards", "std", "group"]),
    "the same for GRPO": ([TINY, "--algorithm", "grpo", "--scale_rewards", "std"], ["scale_rewards", "std", "group"]),
    "unknown loss of GRPO": ([TINY, "--algorithm", "grpo", "--loss_type", "ppo"], ["loss_type", "ppo", "dapo"]),
    "group of one with GRPO": (
        [TINY, "--algorithm", "grpo", "--num_generations", "1"],
        ["at least 2 generations", "1"],
    ),
    "weights of the rewards": ([TINY, "--reward_weights", "1", "2"], ["reward_weights", "2", "1", "exact_match"]),
    "weight that is NaN": ([TINY, "--reward_weights", "[.nan]"], ["reward_weights=[nan]", "not finite"]),
    "weights that are words": ([TINY, "--reward_weights", "much"], ["reward_weights", "much"]),
    # the model
    "dtype misspelled": ([TINY, "--dtype", "bf16"], ["dtype", "bf16", "bfloat16"]),
    "unknown attention": ([TINY, "--attn_implementation", "flash"], ["attn_implementation", "flash", "sdpa"]),
    "attention not installed": (
        [TINY, "--attn_implementation", "flash_attention_2"],
        ["attn_implementation", "flash_attention_2", "flash"],
    ),
    "encoder": ([TINY, "--model_name_or_path", "bert"], ["bert", "BertForMaskedLM"]),
    "encoder and decoder": ([TINY, "--model_name_or_path", "t5"], ["t5", "T5ForConditionalGeneration"]),
    "no tokenizer": ([TINY, "--model_name_or_path", "no_tokenizer"], ["no_tokenizer", "tokenizer"]),
    "unknown architecture": ([TINY, "--model_name_or_path", "unknown_model"], ["unknown_model", "gpt99"]),
    "broken config of the model": ([TINY, "--model_name_or_path", "broken_model"], ["broken_model", "JSON"]),
    "chat template with a syntax error": ([TINY, "--chat_template_path", "open.jinja"], ["open.jinja", "Jinja"]),
    "chat template that raises": ([TINY, "--chat_template_path", "silent.jinja"], ["silent.jinja", "no attribute"]),
    "empty chat template": ([TINY, "--chat_template_path", "empty.jinja"], ["empty.jinja"]),
    "chat template that refuses the system prompt": (
        [TINY, "--chat_template_path", "strict.jinja", "--system_prompt", "Be brief."],
        ["strict.jinja", "system_prompt='Be brief.'", "no place for a system", "prompt_template"],
    ),
    "chat template that fails before long prompts are dropped": (
        [TINY, "--chat_template_path", "open.jinja", "--max_prompt_tokens", "9"],
        ["open.jinja", "Jinja"],
    ),
    "evaluation set that the chat template refuses": (
        [
            TINY,
            "--chat_template_path",
            "strict.jinja",
            "--eval_strategy",
            "steps",
            "--eval_dataset_name",
            "chats.jsonl",
        ],
        ["strict.jinja", "system message in row 1 of 'chats.jsonl'"],
    ),
    # LoRA and quantisation
    "LoRA options without LoRA": ([TINY, "--lora_r", "8"], ["lora_r", "use_peft"]),
    "LoRA on no module": (
        [TINY, *LORA, "--lora_target_modules", "query"],
        ["lora_target_modules", "query", "all-linear"],
    ),
    "LoRA on a module that is not there, beside one that is": (
        [TINY, *LORA, "--lora_target_modules", "q_proj", "gate"],
        ["lora_target_modules=['q_proj', 'gate']", "no module 'gate'", "gate_proj"],
    ),
    "LoRA on the head": ([TINY, *LORA, "--lora_target_modules", "lm_head"], ["lora_target_modules", "lm_head"]),
    "LoRA of rank 0": ([TINY, *LORA, "--lora_r", "0"], ["lora_r=0", "1"]),
    "LoRA of another task": ([TINY, *LORA, "--lora_task_type", "SEQ_CLS"], ["lora_task_type", "SEQ_CLS", "CAUSAL_LM"]),
    "merging without LoRA": ([TINY, "--merge_adapter", "true"], ["merge_adapter", "use_peft"]),
    "resume with a synced reference": (
        [TINY, "--output_dir", "done", "--resume_from_checkpoint", "auto", "--sync_ref_model", "true"],
        ["sync_ref_model", "auto", "reference"],
    ),
    "activation checkpointing option that fails in TRL": (
        [TINY, "--activation_checkpointing_kwargs", "{every_n_layers: 2}"],
        ["every_n_layers", "Remove"],
    ),
    "images": (
        [TINY, "--dataset_name", "pictures.jsonl", *MATHS],
        ["pictures.jsonl", "'image'", "image_column: image"],
    ),
    "4 and 8 bit": ([TINY, *LORA, "--load_in_4bit", "true", "--load_in_8bit", "true"], ["8 bit and 4 bit"]),
    "4 bit with DoRA on a server": (
        [TINY, *LORA, "--load_in_4bit", "true", "--use_dora", "true", "--use_vllm", "true", "--vllm_mode", "server"],
        ["use_dora=True", "quantised weights", "use_vllm: false"],
    ),
    "options of 4 bit without 4 bit": (
        [TINY, "--bnb_4bit_quant_type", "fp4"],
        ["bnb_4bit_quant_type", "load_in_4bit: true"],
    ),
    "4 bit without LoRA": ([TINY, "--load_in_4bit", "true"], ["load_in_4bit", "use_peft"]),
    "4 bit without bitsandbytes": (
        [TINY, *LORA, "--load_in_4bit", "true"],
        ["load_in_4bit", "pip install bitsandbytes"],
    ),
    # engines
    "vLLM not installed": ([TINY, "--use_vllm", "true"], ["use_vllm", "pip install -e '", "[vllm]'"]),
    "vLLM mode misspelled": (
        [TINY, "--use_vllm", "true", "--vllm_mode", "collocate"],
        ["vllm_mode", "collocate", "colocate, server"],
    ),
    "vLLM option without vLLM": (
        [TINY, "--vllm_gpu_memory_utilization", "0.5"],
        ["vllm_gpu_memory_utilization", "use_vllm"],
    ),
    "address of a vLLM server without its mode": (
        [TINY, "--use_vllm", "true", "--vllm_server_host", "node2"],
        ["vllm_server_host", "no effect without vllm_mode", "vllm_mode: server"],
    ),
    "engines that do not divide the processes": (
        [TINY, "--use_vllm", "true", "--vllm_tensor_parallel_size", "2"],
        ["vllm_tensor_parallel_size=2", "processes, 1", "divisor of 1"],
    ),
    "URL for the name of a vLLM server": (
        [TINY, "--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_host", "http://node2"],
        ["vllm_server_host='http://node2'", "http://http://node2:8000", "without http://"],
    ),
    "address of a vLLM server without http": (
        [TINY, "--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_base_url", "node2:8000"],
        ["vllm_server_base_url='node2:8000'", "http://NAME:PORT"],
    ),
    "address of OpenAI's interface": (
        [TINY, "--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_base_url", "http://node2:8000/v1/"],
        ["vllm_server_base_url='http://node2:8000/v1/'", "http://NAME:PORT"],
    ),
    "FSDP in one process": (
        [TINY, "--fsdp", "full_shard"],
        ["fsdp='full_shard'", "one process", "launch/accelerate/fsdp2.yaml"],
    ),
    "FSDP switched on in one process": ([TINY, "--fsdp", "true"], ["fsdp=True", "one process"]),
    "unknown backend of torch.compile": (
        [TINY, "--torch_compile_backend", "inductr"],
        ["torch_compile_backend='inductr'", "Write inductor"],
    ),
    "unknown mode of torch.compile": (
        [TINY, "--torch_compile_mode", "fastest"],
        ["torch_compile_mode='fastest'", "reduce-overhead", "remove torch_compile_mode"],
    ),
    "upload without a token": ([TINY, "--push_to_hub", "true"], ["push_to_hub=True", "hf auth login", "HF_TOKEN"]),
    "Liger not installed": ([TINY, "--use_liger_kernel", "true"], ["use_liger_kernel", "pip install liger-kernel"]),
    "vLLM memory above 1": (
        [TINY, "--use_vllm", "true", "--vllm_gpu_memory_utilization", "30"],
        ["vllm_gpu_memory_utilization=30", "(0, 1]"],
    ),
    "continuous batching that rounds the weights": (
        [TINY, "--use_transformers_continuous_batching", "true", "--bf16", "true"],
        ["use_transformers_continuous_batching", "bf16=True", "use_vllm: true"],
    ),
    "continuous batching that rounds the weights, with GRPO": (
        [TINY, "--algorithm", "grpo", "--use_transformers_continuous_batching", "true", "--bf16", "true"],
        ["use_transformers_continuous_batching", "bf16=True", "use_vllm: true"],
    ),
    "DeepSpeed file missing": ([TINY, "--deepspeed", "nowhere.json"], ["deepspeed", "nowhere.json", "path"]),
    "DeepSpeed not installed": ([TINY, "--deepspeed", "ds.json"], ["ds.json", "pip install -e '", "[deepspeed]'"]),
    "unknown logger": ([TINY, "--report_to", "tensorbord"], ["report_to", "tensorbord", "tensorboard"]),
    "logger not installed": ([TINY, "--report_to", "wandb"], ["report_to", "wandb", "pip install wandb"]),
    # the data
    "two columns to one": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{problem: prompt, answer: prompt}"],
        ["problem", "answer", "prompt"],
    ),
    "message without content": ([TINY, "--dataset_name", "conversation.jsonl"], ["Row 0", "content"]),
    "prompts that are numbers": ([TINY, "--dataset_name", "numbers.jsonl"], ["Row 0", "3"]),
    "content that is no text": ([TINY, "--dataset_name", "parts.jsonl"], ["Row 0", "'image'", "text only"]),
    "answers without a question": ([TINY, "--dataset_name", "only_answers.jsonl"], ["Row 0", "no user message"]),
    "nested column missing": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{problem: prompt, answer.text: solution}"],
        ["dataset_columns", "'answer.text'", '"2"', "'solution'"],
    ),
    "unknown extractor": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--dataset_extract", "{solution: last boxes}"],
        ["dataset_extract", "'last boxes'", "'last box'", "after ####"],
    ),
    "extractor that finds nothing": (
        [TINY, "--dataset_name", "good.jsonl", *MATHS, "--dataset_extract", "{solution: last box}"],
        ["dataset_extract", "'last box'", "40 of 40 rows", "'2'"],
    ),
    "extractor without quotes": (["hashes.yaml"], ["hashes.yaml", "#", "in quotes"]),
    "extractor without quotes on the command line": (
        [TINY, "--dataset_extract", "{solution: after # Answer}"],
        ["dataset_extract", "{solution: after # Answer}", "in quotes"],
    ),
    "max_prompt_length": ([TINY, "--max_prompt_length", "512"], ["max_prompt_length", "max_prompt_tokens: N"]),
    "removed field": ([TINY, "--logging_dir", "logs"], ["removed logging_dir", "TENSORBOARD_LOGGING_DIR"]),
    "no prompt token allowed": ([TINY, "--max_prompt_tokens", "0"], ["max_prompt_tokens=0", "positive"]),
    "every prompt too long": (
        [TINY, "--max_prompt_tokens", "5"],
        ["max_prompt_tokens=5", "2048 prompts", "shortest has 7 tokens"],  # such as <|user|>3+4=<|end|><|assistant|>
    ),
    "no space after a colon": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{problem:prompt, answer:solution}"],
        ["no space after a colon", "{problem: prompt}"],
    ),
    "list of columns": (["columns_list.yaml"], ["dataset_columns=[{'problem': 'prompt'}]", "{key: value}"]),
    "number for a column": (
        [TINY, "--dataset_name", "good.jsonl", "--dataset_columns", "{11: solution}"],
        ["11", "numbers in quotes"],
    ),
    "options of a reward that are no mapping": (
        [TINY, "--reward_kwargs", "{exact_match: 3}"],
        ["exact_match 3", "{option: value}"],
    ),
    "text for a switch of a reward": (
        [TINY, "--reward_funcs", "majority_vote", "--reward_kwargs", "{majority_vote: {boxed: 'false'}}"],
        ["'majority_vote'", "boxed='false'", "Write true or false"],
    ),
    "word for a number of a reward": (
        [TINY, "--reward_funcs", "soft_overlong", "--reward_kwargs", "{soft_overlong: {soft_buffer: two}}"],
        ["'soft_overlong'", "'two'", "other types"],
    ),
    "chat_template_kwargs of the trainer": (
        [TINY, "--chat_template_kwargs", "{tools: 1, enable_thinking: false}"],
        ["contains tools", "Remove"],
    ),
    "evaluation file without the columns": (
        [
            *(TINY, "--dataset_name", "good.jsonl", *MATHS, "--eval_strategy", "steps", "--eval_steps", "5"),
            *("--eval_dataset_name", "chats.jsonl"),
        ],
        ["'chats.jsonl': dataset_columns names 'problem'", "leave this entry out"],
    ),
    # the folder
    "output_dir under a file": ([TINY, "--output_dir", "data.txt/run"], ["data.txt"]),
    "output_dir is a file": ([TINY, "--output_dir", "data.txt"], ["data.txt", "folder"]),
    "output_dir not writable": ([TINY, "--output_dir", "/proc/run"], ["/proc/run", "output_dir"]),
}


CASES |= {
    f"difficulty, {name}": ([TINY, "--difficulty", value, *flags], ["difficulty", *words])
    for name, value, flags, words in (
        ("a word", "hard", [], ["'hard'", "{key: value}"]),
        ("a list", "[0.1, 0.9]", [], ["[0.1, 0.9]", "{key: value}"]),
        ("an unknown key", "{low: 0.1, high: 0.9, revisits: 0.2}", [], ["revisits", "low, high, revisit"]),
        ("without high", "{low: 0.1}", [], ["lacks high", "Write high too"]),
        ("without low", "{high: 0.9}", [], ["lacks low", "Write low too"]),
        ("low above high", "{low: 0.9, high: 0.1}", [], ["low=0.9 and high=0.1", "smaller than high"]),
        ("below 0", "{low: -0.1, high: 0.9}", [], ["low=-0.1", "[0, 1]"]),
        ("above 1", "{low: 0.1, high: 90}", [], ["high=90", "[0, 1]"]),
        ("NaN", "{low: .nan, high: 0.9}", [], ["low=nan", "[0, 1]"]),
        ("text", "{low: easy, high: 0.9}", [], ["low='easy'", "[0, 1]"]),
        ("only revisits", "{low: 0.1, high: 0.9, revisit: 1}", [], ["revisit=1", "small share"]),
        ("with GRPO", "{low: 2, high: 3}", ["--algorithm", "grpo"], ["low=2", "[0, 1]"]),
        (
            "rewards for the form only",
            "{low: 0.1, high: 0.9}",
            ["--reward_funcs", "format", "length"],
            ["['format', 'length'] grades only the form", "Add a reward that grades the answer"],
        ),
    )
}
CASES |= {"share of products above 1": ([TINY, "--dataset_kwargs", "{products: 2}"], ["products=2", "[0, 1]"])}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    recipe = Path(TINY).read_text().replace("reward_funcs: [exact_match]", "")
    (tmp_path / "no_reward.yaml").write_text(recipe)
    recipe = Path(TINY).read_text().replace("steps_per_generation: 2", "")
    (tmp_path / NO_STEPS).write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# errors that are found only with the configuration or the tokenizer of a model
NEEDS_MODEL = {
    *("unknown attention", "attention not installed", "LoRA on no module", "LoRA on the head"),
    "LoRA on a module that is not there, beside one that is",
    *("chat template with a syntax error", "chat template that raises", "empty chat template"),
    *("chat template that refuses the system prompt", "evaluation set that the chat template refuses"),
    "chat template that fails before long prompts are dropped",
    *("unknown model_init_kwargs", "unknown type of weights", "another width than the checkpoint's"),
    *("more layers than the checkpoint's", "word for a width", "no attention heads"),
    "an LM head that the checkpoint does not have",
    "every prompt too long",
    *("own reward that raises", "own reward that returns text"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_before_a_model_is_loaded(case, folder, refused, random_model):
    refused(*CASES[case], builtin=random_model if case in NEEDS_MODEL else None)


@pytest.mark.parametrize("case", sorted(case for case in NEEDS_MODEL if "template" in case or "own" in case.split()))
def test_the_dry_run_refuses_what_needs_the_tokenizer(case, folder, refused, random_model):
    argv, words = CASES[case]
    refused([*argv, "--model_name_or_path", random_model, "--dry_run", "true"], words)


def test_the_installed_command(launch, tmp_path):
    done = launch(TINY, "--num_generations", "1")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("gbpo: error: num_generations=1")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
