"""The evaluation of a checkpoint: its numbers, its sampling, its KL divergence and its cache."""

import dataclasses
import itertools
import sys
import types
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import evals.evaluate
from evals.evaluate import cache, generation
from evals.evaluate.checkpoint import find_checkpoint
from evals.evaluate.command import difference_lines, summary_lines
from evals.evaluate.divergence import divergence
from evals.evaluate.evaluation import evaluate
from evals.evaluate.prompt import Prompt
from evals.evaluate.settings import Settings
from evals.shared import results
from evals.shared.results import Evaluation
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.tiny import character_tokenizer, tiny_decoder
from gbpo.run.recipe.arguments import RunArguments


def none_for_empty(completions, **kwargs):
    """A reward that leaves empty completions ungraded."""
    return [1.0 if c[0]["content"] == "5" else None if not c[0]["content"] else 0.25 for c in completions]


async def count_tokens(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric, **kwargs):
    """An asynchronous reward that takes all of TRL's arguments and returns the number of tokens."""
    assert not kwargs
    assert all(prompt[-1]["role"] == "user" for prompt in prompts)
    assert all([message["role"] for message in completion] == ["assistant"] for completion in completions)
    assert len(prompts) == len(completions) == len(completion_ids) == len(solution)
    log_extra("column", completions)
    log_metric("metric", 1.0)
    return [float(len(ids)) for ids in completion_ids]


def text_for_all(completions, **kwargs):
    return ["good"] * len(completions)


def infinite_for_7(completions, **kwargs):
    return [float("-inf") if c[0]["content"] == "7" else None for c in completions]


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
    """Let every model generate these texts. `~` stands for the end token."""

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
    # 3 has two of four votes. 5 and 5.0 are the same number, have two votes and are wrong. 8 has two votes in the third
    # question, although 3 has three votes in the two questions with the same prompt.
    assert result.majority == [1.0, 0.0, 0.0]
    assert result.greedy == [1.0, 0.0, 0.0]
    assert result.completions == ["3", "5", "3"]
    assert result.mean_tokens == pytest.approx(
        (2 * 9 + 4 + 1 + 4) / 12
    )  # end tokens count: "~" has one token, "5.0~" four
    assert result.truncated == pytest.approx(1 / 12)
    # 1/3 ± 4.302653 · 0.083333 are the ends of the interval over the three questions; −0.0252 is below a share
    assert "mean@4        0.3333  95 % interval [0.0000, 0.6919]" in summary_lines(result)
    lines = dict(line.split()[:2] for line in summary_lines(result) if "@" in line)
    assert {name: float(value) for name, value in lines.items()} == {
        "mean@4": 0.3333,  # (0.5 + 0.25 + 0.25) / 3
        "pass@1": 0.3333,
        "pass@2": 0.6111,  # ((1 − C(2, 2) / C(4, 2)) + 2 · (1 − C(3, 2) / C(4, 2))) / 3 = (5/6 + 1/2 + 1/2) / 3
        "pass@4": 1.0,
        "majority@4": 0.3333,
    }


def test_differences_of_models_are_paired_by_question():
    def scored(*scores):
        return Evaluation(0, 4, list(scores), [0] * len(scores), [], [], None, 1.0, 0.0)

    hard = scored(0.0, 0.25, 1.0, 0.75)
    # differences 0.25, 0.25, 0, 0.25: mean 0.1875, standard error 0.0625, t of 3 degrees of freedom 3.182446
    assert difference_lines(["a", "b"], [hard, scored(0.25, 0.5, 1.0, 1.0)]) == [
        "b: mean@4 +0.1875 [-0.0114, +0.3864], not significant"
    ]
    # with a second model, whose p-value is 0, the first has the level of the last step, which is the same
    lines = difference_lines(["a", "b", "c"], [hard, scored(0.25, 0.5, 1.0, 1.0), scored(0.25, 0.5, 1.25, 1.0)])
    assert lines == [
        "b: mean@4 +0.1875 [-0.0114, +0.3864], not significant",
        "c: mean@4 +0.2500 [+0.2500, +0.2500]",
    ]
    assert difference_lines(["a", "b"], [scored(0.5), scored(1.0)]) == ["b: mean@4 +0.5000, not significant"]


def test_boxed_rewards_vote_on_boxes(model, monkeypatch):
    sampled = [r"so \boxed{3}~", r"\boxed{\frac{6}{2}}~", r"no: \boxed{4}~", "3~"]
    scripted(monkeypatch, sampled, ["~"])
    result = evaluate(model, sums((1, 2)), settings("math", {"workers": 1}))
    assert result.correct == [2]
    assert result.majority == [1.0]  # all whole completions differ, so a vote on them would elect the first
    scripted(monkeypatch, sampled[2:] + sampled[:2], ["~"])
    assert evaluate(model, sums((1, 2)), settings("math", {"workers": 1}), use_cache=False).majority == [1.0]


def test_a_question_without_any_answer_has_majority_zero(model, monkeypatch, capsys):
    scripted(monkeypatch, ["~"] * 4, ["~"])
    result = evaluate(model, sums((1, 2)), settings())
    assert (result.scores, result.correct, result.majority, result.greedy) == ([0.0], [0], [0.0], [0.0])
    assert "warning" not in capsys.readouterr().err


def test_ungraded_completions_count_as_zero_and_are_reported(model, monkeypatch, capsys):
    scripted(monkeypatch, ["5~", "~", "6~", "~"], ["~"])
    asked = settings(f"{__name__}.none_for_empty")
    for _ in range(2):  # the second is no copy from the cache, because a server of a reward may work again
        result = evaluate(model, sums((1, 2)), asked)
        assert result.scores == [0.3125] and result.correct == [1] and result.greedy == [0.0]
        assert (result.ungraded, result.completed) == (3, 5)
        printed = capsys.readouterr()
        assert "3 of 5 completions ungraded" in printed.err and "cached" not in printed.out


def test_an_infinite_reward_is_refused_with_its_row(model, monkeypatch):
    scripted(monkeypatch, ["5~", "~", "7~", "7~"], ["~"])
    with pytest.raises(
        ValueError, match="The reward 'infinite_for_7' is -inf for completion 2, '7', so no mean"
    ) as refused:
        evaluate(model, sums((1, 2)), settings(f"{__name__}.infinite_for_7"))
    assert "\n" not in str(refused.value)


def test_a_reward_that_is_no_number_is_refused(model, monkeypatch):
    scripted(monkeypatch, ["5~", "~", "7~", "7~"], ["~"])
    with pytest.raises(ValueError, match="The reward 'text_for_all' returned 'good', so no mean .* Return numbers"):
        evaluate(model, sums((1, 2)), settings(f"{__name__}.text_for_all"))


def test_rewards_get_the_same_arguments_as_from_trl(model, monkeypatch):
    scripted(monkeypatch, ["5~", "~", "66~", "7"], ["1234"])
    result = evaluate(model, sums((1, 2)), settings(f"{__name__}.count_tokens", system_prompt="Add."))
    assert result.scores == [(2 + 1 + 3 + 1) / 4] and result.greedy == [4.0]


@pytest.mark.slow
def test_generation_is_seeded_and_keeps_the_random_state(model):
    questions = sums(*itertools.product(range(5), range(5)))
    state = torch.get_rng_state()
    first, again, other = (
        evaluate(model, questions, settings(seed=seed, samples=3, batch_size=16, temperature=1.5), use_cache=False)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first.completions != other.completions
    assert first.greedy == other.greedy
    assert torch.equal(state, torch.get_rng_state())
    assert {len(text) for text in first.completions} >= {0, 1}  # some are empty


def test_greedy_is_the_likeliest_token_at_every_position(model):
    """Compared with a loop over single rows without padding or cache. Prompts of several lengths share a batch."""
    checkpoint = find_checkpoint(model)
    prompts = [
        checkpoint.tokenizer(f"<|user|>{text}<|end|><|assistant|>")["input_ids"] for text in ("1+2=", "7", "10+31=")
    ]
    _, greedy = generation.complete(checkpoint, [*map(Prompt, prompts)], settings())
    net = AutoModelForCausalLM.from_pretrained(model)
    for prompt, completion in zip(prompts, greedy, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 4 and ids[-1:] != [checkpoint.tokenizer.eos_token_id] * (len(ids) > len(prompt)):
            ids.append(net(torch.tensor([ids])).logits[0, -1].argmax().item())
        assert completion == ids[len(prompt) :]


@pytest.mark.slow
def test_sampling_follows_only_temperature_and_top_p(model, tmp_path):
    """The first token follows the softmax. The model's own generation_config is ignored."""
    other_config = tmp_path / "other_config"
    net, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    net.generation_config = GenerationConfig(
        do_sample=True, top_k=1, temperature=0.1, top_p=0.1, repetition_penalty=5.0, min_new_tokens=3, eos_token_id=1
    )
    net.save_pretrained(other_config)
    tokenizer.save_pretrained(other_config)
    assert GenerationConfig.from_pretrained(other_config).top_k == 1
    checkpoint = find_checkpoint(str(other_config))
    prompt = tokenizer("<|user|>1+2=<|end|><|assistant|>")["input_ids"]
    temperature, top_p, count = 1.5, 0.8, 4000
    asked = settings(samples=count, temperature=temperature, top_p=top_p, max_tokens=2, batch_size=500)
    sampled, _ = generation.complete(checkpoint, [Prompt(prompt)], asked)
    assert (
        generation.complete(checkpoint, [Prompt(prompt)], asked)[0]
        == generation.complete(find_checkpoint(model), [Prompt(prompt)], asked)[0]
    )

    probabilities = (net(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    kept = ordered.cumsum(-1) - ordered < top_p
    assert 3 < kept.sum() < len(tokens)
    expected = torch.zeros_like(probabilities).index_put((tokens[kept],), ordered[kept] / ordered[kept].sum())
    frequencies = torch.tensor([ids[0] for ids in sampled]).bincount(minlength=len(tokens)) / count
    assert (frequencies - expected).abs().max() < 5 * (0.25 / count) ** 0.5
    assert not frequencies[expected == 0].any()


def test_divergence_equals_sums_over_the_vocabulary(model, other_model):
    """Computed row by row, without padding, in float64."""
    pair = find_checkpoint(model), find_checkpoint(other_model)
    prompts = [pair[0].tokenizer(text)["input_ids"] for text in ("1+2=", "7", "10+31=")]
    completions = [[20, 30, 1], [1], [40] * 6]
    nets = [AutoModelForCausalLM.from_pretrained(name, dtype=torch.float64) for name in (model, other_model)]
    expected = 0.0
    for x, y in zip(prompts, completions, strict=True):
        for t in range(len(y)):
            p, q = (net(torch.tensor([x + y[:t]])).logits[0, -1].softmax(-1).detach() for net in nets)
            expected += (p * (p / q).log()).sum().item() / 3
    rows, form = ([*map(Prompt, prompts)], completions), PromptFormat()
    for batch_size in (1, 3):
        assert divergence(*pair, *rows, form, batch_size) == pytest.approx(expected, rel=1e-4)
    assert divergence(pair[0], pair[0], *rows, form, 2) == pytest.approx(0, abs=1e-6)


def test_divergence_estimates_the_divergence_of_the_completions(model, other_model):
    """At temperature 1, KL = E log π(y)/π_ref(y). Here all completions of at most two tokens are enumerated."""
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


def test_the_cache_depends_on_everything_that_changes_the_result(model, tmp_path, monkeypatch, capsys):
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
    (folder / "README.md").write_text("a model card")
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
        path.write_text(path.read_text()[:20])  # truncated, as after a full disk
    assert computed()


@pytest.mark.slow
def test_an_adapter_equals_the_merged_model(model, other_model, tmp_path):
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
    with find_checkpoint(str(tmp_path / "adapter")).merged() as folder:  # given to vLLM
        merged_again = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, value in AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict().items():
        torch.testing.assert_close(merged_again[name], value)


def test_vllm_gets_the_same_settings(model, monkeypatch):
    """With a fake vLLM: the arguments that it gets, and how its answers are read."""
    received = {}

    class LLM:
        def __init__(self, **options):
            received["engine"] = options

        def generate(self, requests, params):
            params = params if isinstance(params, list) else [params] * len(requests)
            received.setdefault("params", []).append(params)
            texts = [[types.SimpleNamespace(token_ids=(20 + n, 1)) for n in range(p.get("n", 1))] for p in params]
            return [types.SimpleNamespace(outputs=outputs) for outputs in texts]

    stub = types.ModuleType("vllm")
    stub.LLM, stub.SamplingParams = LLM, dict
    stub.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", stub)
    asked = settings(engine="vllm", samples=3, seed=2, temperature=0.7, top_p=0.9)
    sampled, greedy = generation.complete(find_checkpoint(model), [Prompt([5, 6, 7]), Prompt([5])], asked)
    assert sampled == [[20, 1], [21, 1], [22, 1]] * 2 and greedy == [[20, 1]] * 2
    assert received["engine"]["generation_config"] == "vllm" and received["engine"]["dtype"] == "float32"
    assert received["engine"]["max_model_len"] == 3 + 4
    sampling, decoding = received["params"]
    common = {"max_tokens": 4, "stop_token_ids": [1], "detokenize": False}
    # the three completions of a request use consecutive seeds: 12 13 14 and 15 16 17
    assert sampling == [{"n": 3, "temperature": 0.7, "top_p": 0.9, "seed": seed, **common} for seed in (12, 15)]
    assert decoding == [{"temperature": 0.0, **common}] * 2


def test_missing_reference_answers_are_refused(model):
    questions = Dataset.from_dict({"prompt": ["1+2=", "3+4="], "solution": ["3", None]})
    with pytest.raises(ValueError, match="1 of 2 rows"):
        evaluate(model, questions, settings())


def test_a_reference_with_another_vocabulary_is_refused(model, tmp_path):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<|more|>"])
    tiny_decoder(tokenizer).save_pretrained(tmp_path / "more")
    tokenizer.save_pretrained(tmp_path / "more")
    with pytest.raises(ValueError, match="another vocabulary"):
        evaluate(model, sums((1, 2)), settings(), reference=str(tmp_path / "more"))


def test_the_cache_key_covers_the_code_of_the_evaluation():
    covered = {path.resolve() for path in cache.source_files(none_for_empty)}
    package = Path(evals.evaluate.__file__).parent
    assert {path.resolve() for path in package.glob("*.py")} <= covered
    assert {Path(results.__file__).resolve(), Path(__file__).resolve()} <= covered
    assert any(path.match("rewards/answers/majority_vote.py") for path in covered)
    assert any(path.match("gbpo/run/data/loading.py") for path in covered)
