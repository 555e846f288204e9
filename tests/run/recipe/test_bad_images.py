"""A recipe with images that cannot be used ends with status 2 and one line, before a model is loaded."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image as Pillow

from gbpo.run.recipe import checks

RECIPES = Path(__file__).parents[3] / "recipes"
TINY, TEXT = str(RECIPES / "tiny_vision.yaml"), str(RECIPES / "tiny_math.yaml")

ROWS = {
    "good": {"prompt": "Which?", "image": "red.png", "solution": "1"},
    "no_column": {"prompt": "Which?", "solution": "1"},
    "numbers": {"prompt": "Which?", "image": 3, "solution": "1"},
    "words": {"prompt": "Which?", "image": "words.png", "solution": "1"},
    "missing": {"prompt": "Which?", "image": "nowhere.png", "solution": "1"},
    "none": {"prompt": "Which?", "image": [], "solution": "1"},
    "places": {"prompt": "<image> or <image>?", "image": "red.png", "solution": "1"},
    "video": {"prompt": [{"role": "user", "content": [{"type": "video", "text": ""}]}], "image": "red.png"},
}


def data(name):
    return ["--dataset_name", f"{name}.jsonl"]


# arguments → words that the line must contain: the given value and the fix
CASES = {
    "missing column": ([TINY, *data("no_column")], ["image_column='image'", "not a column of", "prompt, solution"]),
    "column without images": ([TINY, *data("numbers")], ["image_column='image'", "holds 3", "not an image"]),
    "file that is no image": ([TINY, *data("words")], ["Row 1", "words.png", "cannot be read as an image"]),
    "missing file": ([TINY, *data("missing")], ["Row 1", "nowhere.png", "Correct or remove"]),
    "row without an image": ([TINY, *data("none")], ["Row 1", "no image", "TRL 1.16", "Remove this row"]),
    "fewer images than places": ([TINY, *data("places")], ["Row 1", "2 place(s) for 1 image(s)", "<image>"]),
    "video": ([TINY, *data("video")], ["Row 1", "'video'", "text and images"]),
    "images without image_column": ([TEXT, *data("good")], ["'image'", "image_column: image", "{image: picture}"]),
    "evaluation set without the column": (
        [TINY, *data("good"), "--eval_dataset_name", "no_column.jsonl", "--eval_strategy", "steps"],
        ["image_column='image'", "no_column.jsonl"],
    ),
    "text-only model": (
        [TINY, "--model_name_or_path", "TEXT_MODEL"],
        ["image_column='image'", "Qwen2ForCausalLM", "reads text only", "Qwen2.5-VL"],
    ),
    "sampled ahead": ([TINY, "--generate_ahead", "1"], ["generate_ahead=1", "image_column='image'", "Remove"]),
    "sampled in another dtype": (
        [TINY, "--sampling_dtype", "bfloat16"],
        ["sampling_dtype=bfloat16", "image_column='image'", "not kept", "Remove"],
    ),
    "resampling": (
        [TINY, "--resample_zero_signal_groups", "true"],
        ["resample_zero_signal_groups=True", "not resampled", "Remove"],
    ),
    "reward model": (
        [TINY, "--reward_funcs", "reward_model"],
        ["reward_funcs=['reward_model']", "image_column='image'", "cannot send images", "use judge"],
    ),
    "continuous batching": (
        [TINY, "--use_transformers_continuous_batching", "true"],
        ["use_transformers_continuous_batching=True", "without the images"],
    ),
    "tokens of a pass": (
        [TINY, "--max_tokens_per_micro_batch", "512"],
        ["max_tokens_per_micro_batch=512", "per_device_train_batch_size"],
    ),
    "Pillow is not installed": ([TINY], ["image_column='image'", "pip install pillow"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a data file for each case. Its first row is good."""
    Pillow.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    (tmp_path / "words.png").write_text("no image")
    for name, row in ROWS.items():
        first = ROWS["good"] if name not in ("no_column", "numbers") else row
        if name == "none":
            first = {**first, "image": ["red.png"]}
        if name == "video":
            first = {**first, "prompt": [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]}
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [first] + [row] * 39))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_before_a_model_is_loaded(case, folder, monkeypatch, refused, random_model, vision_model):
    if "Pillow" in case:
        monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "PIL" else find_spec(name))
    argv, words = CASES[case]
    refused([random_model if word == "TEXT_MODEL" else word for word in argv], words, builtin=vision_model)
