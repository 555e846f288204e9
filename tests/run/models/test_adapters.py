"""LoRA with the real command: the saved adapter, the merged model, and the base model as the reference policy."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from gbpo.run import train
from gbpo.run.recipe import checks
from gbpo.trainer import base

ROOT = Path(__file__).parents[3]
# Two prompts per generation, two generations, two optimiser steps on each. The entropy bonus moves the weights even if
# every answer is wrong.
SHORT = """
  --num_generations 8 --per_device_train_batch_size 8 --optimizer_batch_size 8 --generation_batch_size 16
  --num_iterations 1 --max_completion_length 12 --max_steps 4 --logging_steps 1 --dtype float32 --bf16 false
  --learning_rate 1e-2 --lr_scheduler_type constant --warmup_steps 0 --beta 0.1 --entropy_coef 0.005
  --log_completions false
""".split()


@pytest.fixture(scope="module", params=["gbpo", "grpo"])
def lora_run(request, boxing_model, problems, tmp_path_factory):
    """A run of the LoRA recipe with a merged model: its folder, its trainer and all its batches."""
    output = tmp_path_factory.mktemp(request.param) / "run"
    batches, trainers = [], []
    generate = base.BaseTrainer._generate_and_score_completions

    def record(self, inputs):
        trainers.append(self)
        batches.append(generate(self, inputs))
        return batches[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.BaseTrainer, "_generate_and_score_completions", record)
        train.main(
            [
                str(ROOT / "recipes" / "qwen_math_lora.yaml"),
                *("--model_name_or_path", boxing_model, "--dataset_name", problems, "--output_dir", str(output)),
                *("--dataset_columns", "{problem: prompt, answer: solution}", "--use_vllm", "false"),
                *("--ratio_anchor", "trainer"),
                *("--ratio_anchor", "trainer", "--algorithm", request.param, "--merge_adapter", "true", *SHORT),
            ]
        )
    return SimpleNamespace(folder=output, base=boxing_model, trainer=trainers[0], batches=batches)


def log_probs(model, batch):
    """Log-probabilities of the completion tokens, computed from the logits, (B, T)."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        logps = model.eval()(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    length = batch["completion_ids"].size(1)
    return logps.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -length:] * batch["completion_mask"]


@pytest.mark.sweep
def test_only_the_adapter_is_saved(lora_run):
    saved = {path.name for path in (lora_run.folder / "model").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer_config.json", "README.md"} <= saved
    assert not {"model.safetensors", "config.json"} & saved


def test_both_models_have_a_card(lora_run):
    """The base model is a local folder, so its path is in neither card."""
    cards = [(lora_run.folder / name / "README.md").read_text() for name in ("model", "model-merged")]
    for card, words in zip(cards, ("a LoRA adapter for the local model", "a LoRA adapter merged into"), strict=True):
        assert words in card and "None" not in card and "licen" not in card
        assert "'role': 'user'" in card and "The run took 4 optimiser steps." in card and "KL divergence" in card
    assert not (lora_run.folder / "README.md").exists()


def test_the_merged_model_equals_the_adapted_one(lora_run):
    """In float32, to 1e-5 in each log-probability. The adapter changed them by more than 1e-2."""
    batch = lora_run.batches[-1]
    plain = AutoModelForCausalLM.from_pretrained(lora_run.base)
    before = log_probs(plain, batch)
    adapted = log_probs(PeftModel.from_pretrained(plain, lora_run.folder / "model"), batch)
    trained = log_probs(lora_run.trainer.model, batch)
    merged = AutoModelForCausalLM.from_pretrained(lora_run.folder / "model-merged")
    assert type(merged).__name__ == "Qwen2ForCausalLM" and not getattr(merged, "peft_config", None)
    assert (adapted - before).abs().max() > 1e-2
    for other in (adapted, trained):
        torch.testing.assert_close(log_probs(merged, batch), other, rtol=0, atol=1e-5)
    AutoTokenizer.from_pretrained(lora_run.folder / "model-merged")


def test_the_reference_is_the_model_without_its_adapter(lora_run):
    """The KL is 0 only at the first step. No second model exists, and the reference log-probs are those of the base."""
    rows = [json.loads(line) for line in (lora_run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["kl"] == 0 and all(row["kl"] > 1e-4 for row in rows[1:])
    trainer, first, last = lora_run.trainer, lora_run.batches[0], lora_run.batches[-1]
    assert trainer.ref_model is None and set(trainer.model.peft_config) == {"default"}
    plain = AutoModelForCausalLM.from_pretrained(lora_run.base)
    assert first is not last
    expected = log_probs(plain, last)
    reference = last["ref_per_token_logps"] * last["completion_mask"]
    torch.testing.assert_close(reference, expected, rtol=0, atol=1e-5)
    assert (log_probs(trainer.model, last) - expected).abs().max() > 1e-2


REFUSED = {
    "nothing to merge": (["--use_peft", "false", "--merge_adapter", "true"], ["merge_adapter=True", "use_peft: true"]),
    "merged 8 bit": (
        ["--merge_adapter", "true", "--load_in_8bit", "true"],
        ["merge_adapter=True", "load_in_4bit: true"],
    ),
    "4 bit, vLLM": (["--load_in_4bit", "true"], ["load_in_4bit=True", "vllm_mode='colocate'", "use_vllm: false"]),
    "8 bit, vLLM": (["--load_in_8bit", "true"], ["load_in_8bit=True", "vllm_mode='colocate'", "use_vllm: false"]),
    "4 bit, all weights": (
        ["--use_vllm", "false", "--ratio_anchor", "trainer", "--use_peft", "false", "--load_in_4bit", "true"],
        ["load_in_4bit=True", "use_peft: true"],
    ),
    "8 bit, all weights": (
        ["--use_vllm", "false", "--ratio_anchor", "trainer", "--use_peft", "false", "--load_in_8bit", "true"],
        ["load_in_8bit=True", "use_peft: true"],
    ),
    "no bitsandbytes": (
        ["--use_vllm", "false", "--ratio_anchor", "trainer", "--load_in_4bit", "true"],
        ["load_in_4bit=True", "pip install bitsandbytes"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, monkeypatch, refused):
    monkeypatch.setattr(checks, "find_spec", lambda package: None)
    flags, words = REFUSED[case]
    refused([str(ROOT / "recipes" / "qwen_math_lora.yaml"), *flags], words)
