"""The rewards `judge` and `reward_model` with the real vLLM: the forms of its requests and replies."""

import asyncio
import time
import urllib.request
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

from evals.bench.vllm_server import vllm_server
from rewards.check import check_server
from rewards.judges.judge import Judge
from rewards.judges.reward_model import RewardModel

PROMPTS = ["3+4=", "30+14=", "9+9="]
COMPLETIONS = ["7", "44", "1"]


@contextmanager
def ready(*arguments):
    """A vLLM server that answers."""
    with vllm_server(*arguments) as server:
        end = time.monotonic() + 400
        while True:
            try:
                urllib.request.urlopen(f"{server.url}/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, server.log.read_text()[-3000:]
                time.sleep(0.5)
        yield server


@pytest.fixture(scope="module", params=[1, 3], ids=["one class", "three classes"])
def classifier(request, engine_model, tmp_path_factory):
    """A random classifier of vLLM and the same model in transformers."""
    torch.manual_seed(0)
    config = Qwen2Config.from_pretrained(engine_model, num_labels=request.param, dtype="float32")
    model = Qwen2ForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight, std=0.05)
    tokenizer = AutoTokenizer.from_pretrained(engine_model)
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with ready(folder, folder / "server.log", "--runner", "pooling", "--max-model-len", "512") as server:
        yield server, str(folder), model, tokenizer


def values(model, tokenizer, *texts):
    """The probabilities of the classes, by transformers; one class has the sigmoid of its score."""
    with torch.no_grad():
        scores = model(**tokenizer(*texts, return_tensors="pt")).logits[0]
    return scores.sigmoid().tolist() if len(scores) == 1 else scores.softmax(0).tolist()


def grade(reward, completions, prompts):
    return asyncio.run(reward(completions, prompts=prompts))


def test_classes_of_texts_and_chats_are_those_of_transformers(classifier):
    server, name, model, tokenizer = classifier
    last = model.config.num_labels - 1
    reward = RewardModel(base_url=server.url, model=name, class_index=last, cache=None)
    expected = [values(model, tokenizer, p + c)[last] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert len({round(value, 3) for value in expected}) == 3
    assert grade(reward, COMPLETIONS, PROMPTS) == pytest.approx(expected, abs=1e-4)
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    expected = [
        values(model, tokenizer, tokenizer.apply_chat_template([*chat, answer], tokenize=False))[last]
        for chat, text in zip(chats, COMPLETIONS, strict=True)
        for answer in [{"role": "assistant", "content": text}]
    ]
    replies = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    assert grade(reward, replies, chats) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match=f"no class {last + 1} in"):
        check_server(RewardModel(base_url=server.url, model=name, class_index=last + 1, cache=None), Rows())


def test_scores_of_pairs_are_those_of_transformers(classifier):
    server, name, model, tokenizer = classifier
    reward = RewardModel(base_url=server.url, model=name, endpoint="score", cache=None)
    if model.config.num_labels > 1:
        with pytest.raises(RuntimeError, match="could not grade 3 of 3"):  # vLLM scores with one class alone
            grade(reward, COMPLETIONS, PROMPTS)
        return
    expected = [values(model, tokenizer, *pair)[0] for pair in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert grade(reward, COMPLETIONS, PROMPTS) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def judge_model(engine_model, tmp_path):
    """Folder of a model that reads only the quoted prompt of a judge's message, which is a sum, and writes a number."""
    tokenizer = AutoTokenizer.from_pretrained(engine_model)
    quoted = "message['content'].split('[BEGIN prompt')[1].split('\\n')[1]"
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", quoted)
    Qwen2ForCausalLM.from_pretrained(engine_model).save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


def test_the_grades_of_a_judge_are_the_numbers_that_transformers_writes(judge_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(judge_model)
    model = Qwen2ForCausalLM.from_pretrained(judge_model, dtype=torch.float32)
    written = []
    for prompt in PROMPTS:
        inputs = tokenizer(f"<|user|>{prompt}<|end|><|assistant|>", return_tensors="pt")
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].size(1) :]
        written.append(int(tokenizer.decode(ids, skip_special_tokens=True)))
    assert len(set(written)) == 3
    with ready(judge_model, tmp_path / "server.log", "--max-model-len", "2048") as server:
        template = "{prompt} {completion}"
        options = {"base_url": f"{server.url}/v1", "template": template, "scale": [0, 100], "cache": None}
        judge = Judge(model=str(judge_model), **options)
        assert grade(judge, COMPLETIONS, PROMPTS) == pytest.approx([number / 100 for number in written])
        assert f"gives {written[0] / 100:g} to the reference answer" in check_server(judge, Rows())
        with pytest.raises(ValueError, match="'judge' cannot grade: the reply was cut off"):
            check_server(Judge(model=str(judge_model), max_tokens=1, **options), Rows())
        with pytest.raises(ValueError, match=f"'other' is not one of the models there: {judge_model}"):
            check_server(Judge(model="other", **options), Rows())
        with pytest.raises(RuntimeError, match="status 400: .*(2048|context|length)"):
            grade(Judge(model=str(judge_model), retries=0, **options), [""], ["7" * 4000])


class Rows:
    """A data set of one row."""

    def __getitem__(self, part):
        return {"prompt": ["3+4="], "solution": ["7"]}
