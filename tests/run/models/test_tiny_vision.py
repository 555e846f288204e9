"""The builtin vision-language model: its processor, and the demonstrations of its warm start."""

import torch
from transformers import AutoConfig

from gbpo.run.data.shapes import QUESTION
from gbpo.run.models import tiny_vision
from gbpo.run.models.processors import load_processor


def test_the_processor_is_the_same_after_saving_and_loading(vision_model, vision_processor):
    loaded = load_processor(vision_model, AutoConfig.from_pretrained(vision_model))
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    for processor in (vision_processor, loaded):
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert text == f"<|user|><|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|end|><|assistant|>"
        assert processor.tokenizer.padding_side == "left"
    assert loaded.image_processor.to_dict() == vision_processor.image_processor.to_dict()


def test_a_text_model_has_no_processor(random_model):
    assert load_processor(random_model, AutoConfig.from_pretrained(random_model)) is None


def test_the_demonstrations_have_the_tokens_and_positions_of_a_run(vision_processor, monkeypatch):
    """Their positions are computed once; the model computes the same ones from the tokens and the image."""
    monkeypatch.setattr(tiny_vision, "_IMAGES", 8)
    model = tiny_vision.tiny_qwen_vl(vision_processor.tokenizer)
    inputs = tiny_vision._Demonstrations(vision_processor, model).sample(4, right_fraction=1.0)
    answers = [vision_processor.tokenizer.decode(row[row != -100]) for row in inputs["labels"]]
    assert all(answer in [f"{number}<|end|>" for number in range(1, 6)] for answer in answers)
    kinds = (inputs["input_ids"] == vision_processor.image_token_id).int()
    assert kinds.sum(1).tolist() == [4] * 4
    given = model(**inputs).loss
    computed = model(**{**inputs, "position_ids": None, "mm_token_type_ids": kinds}).loss
    assert torch.equal(given, computed)
    text_positions = torch.arange(kinds.size(1)).expand(3, 4, -1)
    assert not torch.equal(given, model(**{**inputs, "position_ids": text_positions}).loss)
