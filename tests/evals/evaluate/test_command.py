"""The evaluation of a checkpoint: its numbers by hand, its sampling, its cache, its command line."""

import dataclasses
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from evals.evaluate import command as module
from evals.evaluate import generation
from evals.evaluate.command import Settings, evaluate, harness_command, main, summary
from gbpo.run.models.tiny import character_tokenizer, tiny_decoder
from gbpo.run.recipe.arguments import RunArguments

ROOT = Path(__file__).parents[3]


def none_for_empty(completions, **kwargs):
    """A reward that leaves empty completions ungraded."""
    return [1.0 if c[0]["content"] == "5" else None if not c[0]["content"] else 0.25 for c in completions]


async def seen(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric, **kwargs):
    """An asynchronous reward that asks for all that TRL passes, and pays the length of the completion in tokens."""
    assert not kwargs
    assert all(prompt[-1]["role"] == "user" for prompt in prompts)
    assert all([message["role"] for message in completion] == ["assistant"] for completion in completions)
    assert len(prompts) == len(completions) == len(completion_ids) == len(solution)
    log_extra("column", completions)
    log_metric("metric", 1.0)
    return [float(len(ids)) for ids in completion_ids]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny decoder whose every answer is a digit, or nothing, and ends; random which."""
    return str(digit_model(tmp_path_factory.mktemp("digits"), seed=0))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return str(digit_model(tmp_path_factory.mktemp("others"), seed=1))


def digit_model(folder, seed):
    tokenizer = character_tokenizer()
    model = tiny_decoder(tokenizer, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(40):
        digits = torch.randint(0, 10, (32, 3), generator=rng).tolist()
        chats = [f"<|user|>{a}+{b}=<|end|><|assistant|>{c or ''}<|end|>" for a, b, c in digits]
        batch = tokenizer(chats, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(reward="exact_match", reward_kwargs=None, **fields):
    names = {field.name for field in dataclasses.fields(Settings)}
    sampling = {"max_tokens": 4, "samples": 4} | {name: fields.pop(name) for name in names & fields.keys()}
    run = RunArguments(
        dataset_name="made", reward_funcs=[reward], reward_kwargs={reward: reward_kwargs or {}}, **fields
    )
    return Settings(run, **sampling)


def sums(*pairs):
    return Dataset.from_dict({"prompt": [f"{a}+{b}=" for a, b in pairs], "solution": [str(a + b) for a, b in pairs]})


def scripted(monkeypatch, sampled, greedy):
    """Let every model say these texts; `~` ends a completion."""

    def tokens(text):
        ids = character_tokenizer()(text.removesuffix("~"))["input_ids"]
        return ids + [character_tokenizer().eos_token_id] * text.endswith("~")

    answers = [tokens(text) for text in sampled], [tokens(text) for text in greedy]
    monkeypatch.setattr(generation, "complete", lambda checkpoint, prompts, settings: answers)


def test_the_numbers_by_hand(model, monkeypatch):
    questions = sums((1, 2), (2, 2), (1, 2))  # the first question is asked twice
    sampled = ["3~", "3~", "7~", "8~", "5~", "5.0~", "4~", "~", "3~", "8~", "8~", "3141"]
    scripted(monkeypatch, sampled, ["3~", "5~", "~"])
    result = evaluate(model, questions, settings(), step=7)
    assert result.step == 7 and result.samples == 4 and result.kl_to_start is None
    assert result.scores == [0.5, 0.25, 0.25]
    assert result.correct == [2, 1, 1]
    # 3 has two votes of four; 5 and 5.0 are one number with two votes, and wrong; 8 has two votes in the third
    # question, although 3 has three in the two that are worded alike
    assert result.majority == [1.0, 0.0, 0.0]
    assert result.greedy == [1.0, 0.0, 0.0]
    assert result.completions == ["3", "5", "3"]
    assert result.mean_tokens == pytest.approx((2 * 9 + 4 + 1 + 4) / 12)  # with the end token; "~" is one, "5.0~" four
    assert result.truncated == pytest.approx(1 / 12)
    lines = dict(line.split(None, 1) for line in summary(result) if "@" in line)
    assert {name: float(value) for name, value in lines.items()} == {
        "mean@4": 0.3333,  # (0.5 + 0.25 + 0.25) / 3
        "pass@1": 0.3333,
        "pass@2": 0.6111,  # ((1 − C(2, 2) / C(4, 2)) + 2 · (1 − C(3, 2) / C(4, 2))) / 3 = (5/6 + 1/2 + 1/2) / 3
        "pass@4": 1.0,
        "majority@4": 0.3333,
    }


def test_boxed_rewards_vote_on_boxes(model, monkeypatch):
    sampled = [r"so \boxed{3}~", r"\boxed{\frac{6}{2}}~", r"no: \boxed{4}~", "3~"]
    scripted(monkeypatch, sampled, ["~"])
    result = evaluate(model, sums((1, 2)), settings("math", {"workers": 1}))
    assert result.correct == [2]
    assert result.majority == [1.0]  # the whole completions all differ, and would elect the first by chance
    scripted(monkeypatch, sampled[2:] + sampled[:2], ["~"])
    assert evaluate(model, sums((1, 2)), settings("math", {"workers": 1}), cache=False).majority == [1.0]


def test_a_question_without_any_answer_has_majority_zero(model, monkeypatch, capsys):
    scripted(monkeypatch, ["~"] * 4, ["~"])
    result = evaluate(model, sums((1, 2)), settings())
    assert (result.scores, result.correct, result.majority, result.greedy) == ([0.0], [0], [0.0], [0.0])
    assert "warning" not in capsys.readouterr().err


def test_what_is_not_graded_counts_zero_and_is_said_cached_or_not(model, monkeypatch, capsys):
    scripted(monkeypatch, ["5~", "~", "6~", "~"], ["~"])
    asked = settings(f"{__name__}.none_for_empty")
    for _ in range(2):
        result = evaluate(model, sums((1, 2)), asked)
        assert result.scores == [0.3125] and result.correct == [1] and result.greedy == [0.0]
        assert "3 of 5 completions ungraded" in capsys.readouterr().err


def test_rewards_are_called_as_trl_calls_them(model, monkeypatch):
    scripted(monkeypatch, ["5~", "~", "66~", "7"], ["1234"])
    result = evaluate(model, sums((1, 2)), settings(f"{__name__}.seen", system_prompt="Add."))
    assert result.scores == [(2 + 1 + 3 + 1) / 4] and result.greedy == [4.0]


def test_generation_is_seeded_and_leaves_the_random_state_alone(model):
    questions = sums(*itertools.product(range(5), range(5)))
    state = torch.get_rng_state()
    first, again, other = (
        evaluate(model, questions, settings(seed=seed, samples=3, batch_size=16, temperature=1.5), cache=False)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first.completions != other.completions
    assert first.greedy == other.greedy
    assert torch.equal(state, torch.get_rng_state())
    assert {len(text) for text in first.completions} >= {0, 1}  # some are empty


def test_greedy_is_the_likeliest_token_at_every_place(model):
    """Against a loop of one row without padding or cache; prompts of several lengths share a batch."""
    checkpoint = generation.find(model)
    prompts = [
        checkpoint.tokenizer(f"<|user|>{text}<|end|><|assistant|>")["input_ids"] for text in ("1+2=", "7", "10+31=")
    ]
    _, greedy = generation.complete(checkpoint, prompts, settings())
    net = AutoModelForCausalLM.from_pretrained(model)
    for prompt, completion in zip(prompts, greedy, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 4 and ids[-1:] != [checkpoint.tokenizer.eos_token_id] * (len(ids) > len(prompt)):
            ids.append(net(torch.tensor([ids])).logits[0, -1].argmax().item())
        assert completion == ids[len(prompt) :]


def test_sampling_follows_temperature_and_top_p_alone(model, tmp_path):
    """The first token's frequencies are those of the softmax; the generation_config of the model has no say."""
    strange = tmp_path / "strange"
    net, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    net.generation_config = GenerationConfig(
        do_sample=True, top_k=1, temperature=0.1, top_p=0.1, repetition_penalty=5.0, min_new_tokens=3, eos_token_id=1
    )
    net.save_pretrained(strange)
    tokenizer.save_pretrained(strange)
    assert GenerationConfig.from_pretrained(strange).top_k == 1
    checkpoint = generation.find(str(strange))
    prompt = tokenizer("<|user|>1+2=<|end|><|assistant|>")["input_ids"]
    temperature, top_p, count = 1.5, 0.8, 4000
    asked = settings(samples=count, temperature=temperature, top_p=top_p, max_tokens=2, batch_size=500)
    sampled, _ = generation.complete(checkpoint, [prompt], asked)
    assert (
        generation.complete(checkpoint, [prompt], asked)[0]
        == generation.complete(generation.find(model), [prompt], asked)[0]
    )

    probabilities = (net(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    kept = ordered.cumsum(-1) - ordered < top_p
    assert 3 < kept.sum() < len(tokens)
    expected = torch.zeros_like(probabilities).index_put((tokens[kept],), ordered[kept] / ordered[kept].sum())
    seen_tokens = torch.tensor([ids[0] for ids in sampled]).bincount(minlength=len(tokens)) / count
    assert (seen_tokens - expected).abs().max() < 5 * (0.25 / count) ** 0.5
    assert not seen_tokens[expected == 0].any()


def test_divergence_against_sums_over_the_vocabulary(model, other_model):
    """Row by row, without padding, in float64."""
    pair = generation.find(model), generation.find(other_model)
    prompts = [pair[0].tokenizer(text)["input_ids"] for text in ("1+2=", "7", "10+31=")]
    completions = [[20, 30, 1], [1], [40] * 6]
    nets = [AutoModelForCausalLM.from_pretrained(name, dtype=torch.float64) for name in (model, other_model)]
    expected = 0.0
    for x, y in zip(prompts, completions, strict=True):
        for t in range(len(y)):
            p, q = (net(torch.tensor([x + y[:t]])).logits[0, -1].softmax(-1).detach() for net in nets)
            expected += (p * (p / q).log()).sum().item() / 3
    for batch_size in (1, 3):
        assert generation.divergence(*pair, prompts, completions, batch_size) == pytest.approx(expected, rel=1e-4)
    assert generation.divergence(pair[0], pair[0], prompts, completions, 2) == pytest.approx(0, abs=1e-6)


def test_divergence_estimates_the_divergence_of_the_completions(model, other_model):
    """At temperature 1, KL = E log π(y)/π_ref(y), here by enumeration of all completions of at most two tokens."""
    questions = sums((1, 2))
    asked = settings(temperature=1.0, top_p=1.0, samples=600, max_tokens=2)
    estimate = evaluate(model, questions, asked, reference=other_model).kl_to_start
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt = tokenizer("<|user|>1+2=<|end|><|assistant|>")["input_ids"]
    size, end = len(tokenizer), tokenizer.eos_token_id
    logps = []
    for name in (model, other_model):
        net = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float64)
        rows = torch.tensor([[*prompt, token] for token in range(size)])
        with torch.no_grad():
            both = net(rows).logits[:, -2:].log_softmax(-1)
        joint = both[0, 0][:, None] + both[:, 1]  # first token × second
        joint[end] = -torch.inf
        joint[end, 0] = both[0, 0, end]  # nothing follows the end
        logps.append(joint.flatten())
    p, q = logps
    exact = (p.exp() * (p - q))[p > -torch.inf].sum().item()
    assert exact > 0.01
    assert estimate == pytest.approx(exact, rel=0.1)


def test_the_cache_knows_what_a_result_follows_from(model, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    net = AutoModelForCausalLM.from_pretrained(model)
    net.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    questions, calls = sums((1, 2), (3, 4)), []
    scripted(monkeypatch, ["3~"] * 8, ["3~"] * 2)
    complete = generation.complete
    monkeypatch.setattr(generation, "complete", lambda *args: calls.append(args) or complete(*args))

    def computed(questions=questions, step=0, **fields):
        before = len(calls)
        result = evaluate(str(folder), questions, settings(**fields), step=step)
        assert result.step == step and result.scores == [1.0, 0.0]
        assert ("cached" in capsys.readouterr().out) == (len(calls) == before)
        return len(calls) > before

    assert computed()
    assert not computed(step=5)
    (folder / "README.md").write_text("a card")
    (folder / "trainer_state.json").write_text("{}")
    assert not computed()
    assert computed(seed=1) and not computed(seed=1)
    assert computed(prompt_template="{prompt} ?")
    (tmp_path / "chat.jinja").write_text("{{ messages[0]['content'] }}")
    assert computed(chat_template_path=str(tmp_path / "chat.jinja"))
    assert computed(questions=Dataset.from_dict({"prompt": ["1+2=", "3+5="], "solution": ["3", "8"]}))
    assert not computed()
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-3
    net.save_pretrained(folder)
    assert computed() and not computed()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template + " "
    tokenizer.save_pretrained(folder)
    assert computed()
    assert [path.suffix for path in (tmp_path / "cache" / "gbpo" / "evaluations").iterdir()] == [".json"] * 7
    for path in (tmp_path / "cache" / "gbpo" / "evaluations").iterdir():
        path.write_text(path.read_text()[:20])  # as a broken disk leaves it
    assert computed()


def test_an_adapter_is_its_base_with_the_adapter(model, other_model, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "merged")
    questions = sums((1, 2), (3, 4))
    results = [
        evaluate(str(tmp_path / name), questions, settings(samples=8), reference=model)
        for name in ("adapter", "merged")
    ]
    assert results[0].completions == results[1].completions
    assert results[0].kl_to_start == pytest.approx(results[1].kl_to_start, rel=1e-3)
    assert results[0].kl_to_start > 0.01
    with generation._whole(generation.find(str(tmp_path / "adapter"))) as folder:  # what vLLM is given
        whole = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, value in AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict().items():
        torch.testing.assert_close(whole[name], value)


def test_vllm_is_asked_for_the_same(model, monkeypatch):
    """With a stand-in for vLLM: what it is told, and how its answers are read."""
    told = {}

    class LLM:
        def __init__(self, **options):
            told["engine"] = options

        def generate(self, requests, params):
            params = params if isinstance(params, list) else [params] * len(requests)
            told.setdefault("params", []).append(params)
            texts = [[types.SimpleNamespace(token_ids=(20 + n, 1)) for n in range(p.get("n", 1))] for p in params]
            return [types.SimpleNamespace(outputs=outputs) for outputs in texts]

    stub = types.ModuleType("vllm")
    stub.LLM, stub.SamplingParams = LLM, dict
    stub.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", stub)
    asked = settings(engine="vllm", samples=3, seed=2, temperature=0.7, top_p=0.9)
    sampled, greedy = generation.complete(generation.find(model), [[5, 6, 7], [5]], asked)
    assert sampled == [[20, 1], [21, 1], [22, 1]] * 2 and greedy == [[20, 1]] * 2
    assert told["engine"]["generation_config"] == "vllm" and told["engine"]["dtype"] == "float32"
    assert told["engine"]["max_model_len"] == 3 + 4
    drawn, best = told["params"]
    common = {"max_tokens": 4, "stop_token_ids": [1], "detokenize": False}
    # seeds of the three completions of a request follow its own: 12 13 14, 15 16 17
    assert drawn == [{"n": 3, "temperature": 0.7, "top_p": 0.9, "seed": seed, **common} for seed in (12, 15)]
    assert best == [{"temperature": 0.0, **common}] * 2


def test_golds_that_are_none_are_refused(model):
    questions = Dataset.from_dict({"prompt": ["1+2=", "3+4="], "solution": ["3", None]})
    with pytest.raises(ValueError, match="reference answers of 1 of 2 rows"):
        evaluate(model, questions, settings())


def test_a_reference_of_another_vocabulary_is_refused(model, tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<|more|>"])
    tiny_decoder(tokenizer).save_pretrained(tmp_path / "more")
    tokenizer.save_pretrained(tmp_path / "more")
    with pytest.raises(ValueError, match="another vocabulary"):
        evaluate(model, sums((1, 2)), settings(), reference=str(tmp_path / "more"))


@pytest.fixture
def questions_file(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"problem": f"{a}+{a}=", "answer": str(2 * a), "unread": {"a": a}} for a in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


COLUMNS = ("--columns", '{"problem": "prompt", "answer": "solution"}')
SMALL = ("--samples", "2", "--max_tokens", "4", "--reward", "exact_match")


def test_the_command_as_a_user_types_it(model, other_model, questions_file, tmp_path):
    command = [sys.executable, "-m", "evals.evaluate", model, other_model, questions_file, *COLUMNS, *SMALL]
    command += ["--reference", model, "--output", str(tmp_path / "out.json")]
    runs = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False) for _ in range(2)
    ]
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr[-3000:]
    assert "cached" not in runs[0].stdout and runs[1].stdout.count(": cached, ") == 2
    for word in ("mean@2", "pass@1", "pass@2", "majority@2", "greedy", "mean length", "truncated", "KL"):
        assert runs[0].stdout.count(word) == 2, word
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["model"] for one in written] == [model, other_model]
    for one in written:
        assert one["evaluation"].keys() == {field.name for field in dataclasses.fields(module.Evaluation)}
        assert len(one["evaluation"]["scores"]) == 5 and one["evaluation"]["samples"] == 2
        assert one["settings"]["temperature"] == 0.6 and one["settings"]["engine"] == "transformers"
    assert written[0]["evaluation"]["kl_to_start"] == pytest.approx(0, abs=1e-6)
    assert written[1]["evaluation"]["kl_to_start"] > 0.01


def test_a_generated_task_asks_what_training_does_not(model, capsys):
    assert module._parser().parse_args(["m", "arithmetic"]).dataset_kwargs == "{}"
    for kwargs, word in (("{size: 3}", "questions     3"), ("{size: 2, seed: 0}", "questions     2")):
        main([model, "arithmetic", *SMALL, "--dataset_kwargs", kwargs])
        assert word in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL"], "data set last"),
        (["MODEL", "nowhere.jsonl", *SMALL], "'nowhere.jsonl' not found"),
        (["MODEL", "FILE", *SMALL], "no column 'prompt'"),
        (["MODEL", "FILE", *SMALL, "--columns", '{"problem": "prompt"}'], "reads the column 'solution'"),
        (["MODEL", "FILE", *SMALL, "--columns", '{"nothing": "prompt"}'], "names 'nothing'"),
        (["MODEL", "FILE", *COLUMNS, "--reward", "mathh"], "nearest known one is 'math'"),
        (["MODEL", "FILE", *COLUMNS, "--reward", "math", "--reward_kwargs", '{"wrokers": 1}'], "wrokers"),
        (["MODEL", "FILE", *COLUMNS], "reward_funcs is missing"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--samples", "0"], "samples=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--samples", "two"], "invalid int value: 'two'"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--temperature", "0"], "temperature=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--temperature", "nan"], "temperature=nan"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--top_p", "1.5"], "top_p=1.5"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--max_tokens", "0"], "max_tokens=0"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--seed", "-1"], "seed=-1"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--prompt_template", "Add!"], "has no {prompt}"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--engine", "vllm"], "engine='vllm' is not installed"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--output", "no/where.json"], "'no/where.json'"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--smaples", "2"], "--smaples"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--tasks", "gsm8k"], "without --harness"),
        (["runs/nowhere/model", "FILE", *COLUMNS, *SMALL], "'runs/nowhere/model' is no folder"),
        (["builtin:tiny", "FILE", *COLUMNS, *SMALL], "'builtin:tiny'"),
        (["MODEL", "./nowhere", "FILE", *COLUMNS, *SMALL], "'./nowhere' is no folder"),
        (["MODEL", "FILE", *COLUMNS, *SMALL, "--reference", "./nowhere"], "'./nowhere' is no folder"),
        (["MODEL", "--harness", "lm-eval"], "needs its tasks"),
        (["MODEL", "--harness", "lm-eval", "--tasks", "gsm8k"], "pip install 'lm-eval[hf]'"),
        (["MODEL", "--harness", "lighteval", "--tasks", "gsm8k|0"], "pip install 'lighteval"),
    ],
)
def test_bad_input_is_one_line_before_any_model_is_loaded(
    arguments, words, model, questions_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(generation, "_load", lambda checkpoint: pytest.fail("a model was loaded"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)  # neither vLLM nor a harness
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": model, "FILE": questions_file}
    with pytest.raises(SystemExit) as stop:
        main([names.get(argument, argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error and error.count("\n") == 1 and error.startswith("evals.evaluate: error: "), error


def test_harnesses_get_their_command_lines(model, tmp_path, monkeypatch, capfd):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": model}))
    assert harness_command("lm-eval", model, "gsm8k,mmlu", "out")[1:] == [
        *("-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}", "--tasks", "gsm8k,mmlu"),
        *("--apply_chat_template", "--output_path", "out"),
    ]
    assert f"pretrained={model},peft={adapter},tokenizer={model}" in harness_command("lm-eval", str(adapter), "a", None)
    assert harness_command("lighteval", model, "gsm8k|0", None)[1:] == [
        *("-m", "lighteval", "accelerate", f"model_name={model}", "gsm8k|0")
    ]
    with pytest.raises(ValueError, match="merge_adapter"):
        harness_command("lighteval", str(adapter), "gsm8k|0", None)

    # a stand-in that is "installed", and fails
    (tmp_path / "lm_eval.py").write_text("import sys; print('got', sys.argv[1:]); raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    with pytest.raises(SystemExit) as stop:
        main([model, model, "--harness", "lm-eval", "--tasks", "gsm8k"])
    printed = capfd.readouterr().out
    assert stop.value.code == 3
    assert printed.count("got ['run', '--model', 'hf'") == 1 and f"pretrained={model}" in printed.splitlines()[0]


def test_the_command_waits_for_nothing_before_its_arguments_are_known():
    code = "import sys, evals.evaluate.command; print({'torch', 'trl', 'peft', 'datasets'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    code = "import sys, gbpo.run.rewards, evals.evaluate.generation; print('trl' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
