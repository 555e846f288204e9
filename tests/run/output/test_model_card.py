"""The model card: what it links to, what it leaves out, its numbers, and the command without secrets."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from gbpo.run.output.model_card import model_card
from gbpo.run.processes.ending import started_words
from gbpo.run.recipe.parsing import parse
from gbpo.shared.commands import as_typed

PAPER = {"title": "A Paper", "id": "2604.00001", "citation": "@article{a}\n"}
MODEL, DATA = "somebody/some-model", "somebody/some-data"


def card_of(folder, *flags, prompt="Your question", merged=False):
    path = folder / "own.yaml"
    path.write_text(f"model_name_or_path: {MODEL}\ndataset_name: {DATA}\nreward_funcs: [exact_match]\n")
    recipe = parse([str(path), "--output_dir", str(folder / "mine"), *flags])
    text = model_card(recipe, folder / "mine", command="launch X", prompt=prompt, paper=PAPER, merged=merged)
    return ModelCard(text)


def test_what_has_a_hub_id_is_linked_and_is_metadata(tmp_path):
    card = card_of(tmp_path, "--dataset_train_split", "half", "--model_revision", "abc")
    assert card.data.base_model == MODEL and card.data.base_model_relation == "finetune"
    assert card.data.datasets == [DATA] and card.data.library_name == "transformers"
    assert f"a fine-tuned version of [{MODEL}](https://huggingface.co/{MODEL}) at revision `abc`." in card.text
    assert f"[{DATA}](https://huggingface.co/datasets/{DATA}), split `half`." in card.text
    assert "```sh\nlaunch X\n```" in card.text and "Rewards: `exact_match`." in card.text
    assert "https://arxiv.org/abs/2604.00001" in card.text and "@article{a}" in card.text


@pytest.mark.parametrize("dataset", ["arithmetic", "file.jsonl"])
@pytest.mark.parametrize("model", ["builtin:tiny_math", "/absent/folder/weights"])
def test_what_is_local_or_generated_is_named_and_not_linked(tmp_path, model, dataset):
    data = dataset if dataset == "arithmetic" else str(tmp_path / dataset)
    card = card_of(tmp_path, "--model_name_or_path", model, "--dataset_name", data)
    found = card.data.to_dict()
    assert not {"base_model", "base_model_relation", "datasets", "licence", "license"} & set(found)
    assert "https://huggingface.co" not in card.text and "None" not in card.text and "/absent" not in card.text
    assert str(tmp_path) not in card.text
    assert f"`{Path(model).name}`" in card.text and f"`{dataset}`" in card.text


def test_the_name_is_that_of_the_output_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    for output in (".", str(tmp_path / "mine")):
        path = tmp_path / "own.yaml"
        path.write_text(f"model_name_or_path: {MODEL}\ndataset_name: {DATA}\nreward_funcs: [exact_match]\n")
        recipe = parse([str(path), "--output_dir", output])
        card = ModelCard(model_card(recipe, Path(output), command="X", prompt="?", paper=PAPER))
        assert card.data.model_name == "mine" and "\n# mine\n" in card.text


def test_the_adapter_and_the_merged_model_have_cards_of_their_own(tmp_path):
    adapter, merged = (card_of(tmp_path, "--use_peft", "true", merged=merged) for merged in (False, True))
    assert adapter.data.library_name == "peft" and adapter.data.base_model_relation == "adapter"
    assert merged.data.library_name == "transformers" and merged.data.base_model_relation == "finetune"
    assert "This is a LoRA adapter for [" in adapter.text and "a LoRA adapter merged into [" in merged.text


def test_the_program_of_the_card_asks_in_the_form_of_the_training_prompts(tmp_path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Your question"}]
    calls = []

    def run(card):
        program = card.text.split("```python\n")[1].split("```")[0].replace("from transformers import pipeline", "")

        def pipeline(task, model):
            return lambda prompt, **options: calls.append((model, prompt)) or [{"generated_text": ""}]

        exec(program, {"pipeline": pipeline})

    run(card_of(tmp_path, prompt=prompt))
    run(card_of(tmp_path, "--hub_model_id", "me/mine"))
    assert calls == [(".", prompt), ("me/mine", "Your question")]


def test_the_table_has_the_means_of_the_first_and_the_last_fifth(tmp_path):
    """10 logs, so 2 at each end: rewards 0 and 0.2 have mean 0.1 and deviation sqrt(2 · 0.1²) = 0.141."""
    rewards = [0, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.8, 0.8]
    rows = [{"step": step, "reward": reward} for step, reward in enumerate(rewards, 1)]
    rows.insert(5, {"step": 5, "eval_reward": 0.25})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = card_of(tmp_path).text
    assert "The run took 10 optimiser steps." in text
    assert "| reward in training | 0.100 ± 0.141 | 0.800 ± 0.000 | 2 |" in text
    assert "| reward in evaluations | 0.250 | 0.250 | 1 |" in text
    assert "KL" not in text


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["/env/python", "launch/gbpo.py", "r.yaml"], "python launch/gbpo.py r.yaml"),
        (["/env/python", "/env/accelerate", "launch", "{cwd}/launch/gbpo.py"], "accelerate launch launch/gbpo.py"),
        (["python", "x.py", "--hub_token", "hf_1", "--seed", "1"], "python x.py --hub_token HIDDEN --seed 1"),
        (["python", "x.py", "--push-to-hub-token=hf_1"], "python x.py --push-to-hub-token=HIDDEN"),
        (["python", "x.py", "--max_prompt_tokens", "9"], "python x.py --max_prompt_tokens 9"),
        (["python", "{home}/my x.py", "--a={home}/b", "--c={cwd}/d"], "python ~/'my x.py' --a ~/b --c d"),
        (["/usr/bin/timeout", "9", "/env/gbpo", "train"], "/usr/bin/timeout 9 gbpo train"),
        (["python", "x.py", "/data/e", "--f=/data/g"], "python x.py /data/e --f /data/g"),
    ],
)
def test_the_command_has_no_secrets_and_no_paths_of_the_environment(monkeypatch, tmp_path, typed, shown):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/env/python")
    monkeypatch.setattr(sys, "argv", ["x.py", "not", "the", "parent"])
    monkeypatch.setattr(sys, "orig_argv", [word.format(cwd=Path.cwd(), home=tmp_path) for word in typed])
    assert as_typed(started_words()) == shown
