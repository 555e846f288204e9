"""QLoRA on the CPU: nf4 weights of bitsandbytes under a LoRA adapter, by the tiny recipe, saved, loaded and merged."""

import json
from pathlib import Path

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from gbpo.run import train
from gbpo.run.models import catalogue as models

ROOT = Path(__file__).parents[2]
QUESTIONS = ["1+2=", "30+4=", "12+29="]


@pytest.fixture(scope="module", params=["gbpo", "grpo"])
def qlora_run(request, tmp_path_factory):
    """The folder that four steps of the tiny recipe on nf4 weights leave."""
    output = tmp_path_factory.mktemp("qlora") / "run"
    train.main(
        [
            str(ROOT / "recipes" / "tiny_math.yaml"),
            *("--algorithm", request.param, "--output_dir", str(output), "--merge_adapter", "true"),
            *("--use_peft", "true", "--lora_target_modules", "all-linear", "--lora_dropout", "0"),
            *("--load_in_4bit", "true", "--learning_rate", "1e-2", "--max_steps", "4", "--logging_steps", "1"),
        ]
    )
    return output


def log_probs(model, tokenizer):
    """Log-probabilities of the next token after each question, (3, vocabulary).

    In training mode, without dropout: in evaluation bitsandbytes computes in bfloat16 where the processor can.
    """
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        return model.train()(**batch).logits[:, -1].float().log_softmax(-1)


def test_trains_an_adapter_that_loads_back_and_merges(qlora_run):
    """The merged model has the adapted one's log-probabilities to 2e-5; the adapter moved them by more than 0.1."""
    rows = [json.loads(line) for line in (qlora_run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(row["grad_norm"] > 0 for row in rows)
    assert (qlora_run / "model" / "adapter_model.safetensors").is_file()
    assert not (qlora_run / "model" / "model.safetensors").exists()
    tokenizer = AutoTokenizer.from_pretrained(qlora_run / "model", padding_side="left")
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    base = AutoModelForCausalLM.from_pretrained(
        models.local_model("builtin:tiny_math"), quantization_config=quantization, dtype=torch.float32
    )
    assert isinstance(base.model.layers[0].mlp.up_proj, bitsandbytes.nn.Linear4bit)
    before = log_probs(base, tokenizer)
    adapted = log_probs(PeftModel.from_pretrained(base, qlora_run / "model"), tokenizer)
    merged = log_probs(AutoModelForCausalLM.from_pretrained(qlora_run / "model-merged"), tokenizer)
    assert (adapted - before).abs().max() > 0.1
    torch.testing.assert_close(merged, adapted, rtol=0, atol=2e-5)
