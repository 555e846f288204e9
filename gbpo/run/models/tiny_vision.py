"""The builtin vision-language model: a tiny Qwen2.5-VL, trained on noisy demonstrations of counting circles.

It needs neither the Hub nor a GPU. After one or two minutes of training on one core, the policy answers with a number
and counts right some of the time. Reinforcement learning needs such a policy to start from.
"""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..data import shapes
from .processors import without_videos
from .tiny import Batch, character_tokenizer, train_until_right

START_REWARD = 0.35  # the warm start stops at this probability of the correct answer
_RIGHT_FRACTION = 0.7
_IMAGES = 4096
_BATCH, _LEARNING_RATE = 64, 3e-3

_IMAGE, _VIDEO, _BEGIN, _END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{{ '" + _BEGIN + _IMAGE + _END + "' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tiny_processor() -> Any:
    """A character tokenizer with an image processor: an image of 56 × 56 pixels has 16 patches and 4 tokens."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([_IMAGE, _VIDEO, _BEGIN, _END], special_tokens=True)
    tokenizer.chat_template = _CHAT_TEMPLATE
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})
    return without_videos(Qwen2_5_VLProcessor)(images, tokenizer, chat_template=_CHAT_TEMPLATE)


def tiny_qwen_vl(tokenizer: Any, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL with random weights and about 0.3 M parameters for this tokenizer."""
    torch.manual_seed(seed)
    image, video, begin, end = tokenizer.convert_tokens_to_ids([_IMAGE, _VIDEO, _BEGIN, _END])
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [0],
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=begin,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def build(directory: Path) -> None:
    """Train the starting model, which counts circles, and save it with its processor to `directory`."""
    processor = tiny_processor()
    model = tiny_qwen_vl(processor.tokenizer)
    demonstrations = _Demonstrations(processor, model)
    held_out = demonstrations.sample(512, right_fraction=1.0)
    train_until_right(
        model, lambda: demonstrations.sample(_BATCH, _RIGHT_FRACTION), held_out, _LEARNING_RATE, START_REWARD
    )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


class _Demonstrations:
    """Images with the question and an answer, processed once. All have equally many tokens, in the same positions."""

    def __init__(self, processor: Any, model: Any):
        self._rng = torch.Generator().manual_seed(0)
        self._right = torch.randint(1, shapes.MOST_CIRCLES + 1, (_IMAGES,), generator=self._rng)
        rng = random.Random("demonstrations")
        content = [{"type": "image"}, {"type": "text", "text": shapes.QUESTION}]
        chat = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        pictures = [[shapes.picture(circles, rng)] for circles in self._right.tolist()]
        inputs = processor(images=pictures, text=[prompt] * _IMAGES, return_tensors="pt")
        self._prompts, self._grids = inputs["input_ids"], inputs["image_grid_thw"]
        self._pixels = inputs["pixel_values"].unflatten(0, (_IMAGES, -1))
        endings = [f"{answer}{processor.tokenizer.eos_token}" for answer in range(1, shapes.MOST_CIRCLES + 1)]
        self._answers = processor.tokenizer(endings, return_tensors="pt")["input_ids"]
        first = torch.cat([self._prompts[:1], self._answers[:1]], dim=1)
        kinds = (first == processor.image_token_id).int()
        self._positions, _ = model.model.get_rope_index(first, kinds, self._grids[:1])

    def sample(self, size: int, right_fraction: float) -> Batch:
        """`size` chats. Only the tokens of the answer have labels. An incorrect demonstration has a random answer."""
        rows = torch.randint(_IMAGES, (size,), generator=self._rng)
        right = torch.rand(size, generator=self._rng) < right_fraction
        guesses = torch.randint(len(self._answers), (size,), generator=self._rng)
        prompts, answers = self._prompts[rows], self._answers[torch.where(right, self._right[rows] - 1, guesses)]
        return {
            "input_ids": torch.cat([prompts, answers], dim=1),
            "labels": torch.cat([torch.full_like(prompts, -100), answers], dim=1),
            "position_ids": self._positions.expand(-1, size, -1),
            "pixel_values": self._pixels[rows].flatten(0, 1),
            "image_grid_thw": self._grids[rows],
        }
