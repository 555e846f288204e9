"""An evaluation of a vision-language model: every prompt is read with its own images, in their order."""

import dataclasses

import pytest
import torch
from datasets import Dataset
from PIL import Image as Pillow
from transformers import Qwen2_5_VLForConditionalGeneration

import pictures
from evals.evaluate import generation
from evals.evaluate.checkpoint import find_checkpoint
from evals.evaluate.divergence import divergence
from evals.evaluate.evaluation import evaluate
from evals.evaluate.prompt import read_prompts
from evals.evaluate.settings import Settings
from gbpo.run.data import images
from gbpo.run.recipe.arguments import RunArguments


def places(prompts, completions, images, **kwargs):
    """A reward that tells images apart: the width of the first, and the number of them after the comma."""
    for prompt, own in zip(prompts, images, strict=True):
        shown = [part["image"] for part in prompt[-1]["content"] if part["type"] == "image"]
        assert [picture.tobytes() for picture in shown] == [picture.tobytes() for picture in own]
    return [own[0].width + len(own) / 10 for own in images]


def settings(reward="exact_match", **fields):
    sampling = {"max_tokens": 5, "samples": 2, "batch_size": 4}
    sampling |= {one.name: fields.pop(one.name) for one in dataclasses.fields(Settings) if one.name in fields}
    run = RunArguments(dataset_name="made", image_column="images", reward_funcs=[reward], **fields)
    return Settings(run, **sampling)


@pytest.fixture(scope="module")
def sharp_model(vision_model, vision_processor, tmp_path_factory):
    """A random model whose larger weights let its answers depend on the images. It does not write image tokens."""
    folder = tmp_path_factory.mktemp("sharp")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(vision_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)
        model.get_input_embeddings().weight[model.config.image_token_id] = 0.0
    model.save_pretrained(folder)
    vision_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def asked(sharp_model):
    """The checkpoint and seven prompts with 1, 2 or 3 images."""
    checkpoint = find_checkpoint(sharp_model, image_column="images")
    return checkpoint, read_prompts(pictures.rows(7), settings().prompts, checkpoint)


def alone(checkpoint, prompt, completion=()):
    """What the model reads for one prompt without padding."""
    pixels = [part["image"] for message in prompt.messages for part in message["content"] if part["type"] == "image"]
    text = checkpoint.description.processor.apply_chat_template(
        prompt.messages, tokenize=False, add_generation_prompt=True
    )
    inputs = checkpoint.description.processor(images=pixels, text=[text], return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt.ids
    added = torch.tensor([list(completion)], dtype=torch.long)
    for name, other in (("input_ids", added), ("attention_mask", added * 0 + 1), ("mm_token_type_ids", added * 0)):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], other], dim=1)
    return inputs


def test_completions_of_a_batch_are_those_of_single_prompts(asked):
    checkpoint, prompts = asked
    _, greedy = generation.complete(checkpoint, prompts, settings())
    model = checkpoint.load()
    for prompt, completion in zip(prompts, greedy, strict=True):
        ids = []
        while len(ids) < 5 and not set(ids) & set(checkpoint.end_tokens):
            ids.append(model(**alone(checkpoint, prompt, ids)).logits[0, -1].argmax().item())
        assert completion == ids
    assert len({tuple(ids) for ids in greedy}) > 2  # they depend on the prompts


def test_the_divergence_reads_each_prompt_with_its_images(asked, vision_model):
    checkpoint, prompts = asked
    start = find_checkpoint(vision_model, image_column="images")
    completions = [list(range(5, 6 + i % 3)) for i in range(len(prompts))]
    found = divergence(checkpoint, start, prompts, completions, settings().prompts, batch_size=4)
    total = 0.0
    for prompt, completion in zip(prompts, completions, strict=True):
        first = len(prompt.ids) - 1
        p, q = (
            one.load()(**alone(one, prompt, completion)).logits[0, first : first + len(completion)].log_softmax(-1)
            for one in (checkpoint, start)
        )
        total += (p.exp() * (p - q)).sum().item()
    assert found == pytest.approx(total / len(prompts), rel=1e-4) and found > 0.1


def test_rewards_get_the_images_of_their_rows(vision_model):
    rows = pictures.rows(4)
    result = evaluate(vision_model, rows, settings(f"{__name__}.places"))
    expected = [own[0].width + len(own) / 10 for own in images.decoded(rows)]
    assert result.scores == pytest.approx(expected) and result.greedy == pytest.approx(expected)
    assert len(set(expected)) == 4


def test_the_cache_depends_on_the_content_of_the_images(vision_model, tmp_path, monkeypatch):
    calls = []
    complete = generation.complete
    monkeypatch.setattr(generation, "complete", lambda *args: calls.append(args) or complete(*args))

    def computed(*files):
        columns = {"prompt": ["Which?"] * 2, "solution": ["1", "2"], "images": [[str(file)] for file in files]}
        rows, _ = images.use_images(Dataset.from_dict(columns), "images", tmp_path, "made")
        place = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}]
        rows = rows.remove_columns("prompt").add_column("prompt", [place] * 2)
        before = len(calls)
        evaluate(vision_model, rows, settings())
        return len(calls) > before

    first, second, copy = (tmp_path / name for name in ("first.png", "second.png", "copy.png"))
    pictures.picture(0).save(first)
    pictures.picture(1).save(second)
    copy.write_bytes(first.read_bytes())
    assert computed(first, second) and not computed(first, second)
    assert not computed(copy, second)
    assert computed(second, first)
    Pillow.new("RGB", (56, 28), "black").save(second)
    assert computed(first, second)


def test_an_adapter_of_a_vision_model_is_loaded_with_its_vision_tower(asked, sharp_model, vision_processor, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(Qwen2_5_VLForConditionalGeneration.from_pretrained(sharp_model), config)
    adapted.save_pretrained(tmp_path)
    vision_processor.save_pretrained(tmp_path)
    inputs = alone(asked[0], asked[1][2])
    found = find_checkpoint(str(tmp_path), image_column="images").load()(**inputs).logits
    torch.testing.assert_close(found, adapted.eval()(**inputs).logits)
    assert (found - asked[0].load()(**inputs).logits).abs().max() > 0.1


def test_a_model_of_text_is_refused(random_model):
    with pytest.raises(ValueError, match="image_column='images' needs a model that sees images.*Qwen2ForCausalLM"):
        evaluate(random_model, pictures.rows(2), settings(f"{__name__}.places"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine": "vllm"}, "engine='vllm' with image_column='images'.*Write engine='transformers'"),
        ({"tools": ["builtin:calculator"]}, "image_column='images' with tools=.*eval_strategy: steps"),
        ({"environment": "builtin:code_word"}, "image_column='images' with environment='builtin:code_word'"),
    ],
)
def test_refusals(fields, words):
    with pytest.raises(ValueError, match=words):
        settings(**fields)
