"""The tokenizer of the builtin models is the same after saving and loading."""

import string

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer

from gbpo import local_model
from gbpo.run.data import programs
from gbpo.run.models.catalogue import check_model_name
from gbpo.run.models.tiny import character_tokenizer


@pytest.mark.parametrize("loader", [AutoTokenizer, AutoProcessor])
@pytest.mark.parametrize("text", [string.printable, "```python\n" + programs.program(3, -4) + "```", "12+30="])
def test_one_token_per_character_also_after_loading(random_model, loader, text):
    for tokenizer in (character_tokenizer(), loader.from_pretrained(random_model)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text) and tokenizer.decode(ids) == text
        assert ids == character_tokenizer()(text)["input_ids"]


def test_the_chat_template_survives(random_model):
    chat = [{"role": "user", "content": "times 2, plus 6"}]
    expected = "<|user|>times 2, plus 6<|end|><|assistant|>"
    for tokenizer in (character_tokenizer(), AutoTokenizer.from_pretrained(random_model)):
        assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == expected
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert len(ids) == len("times 2, plus 6") + 3


def test_an_unknown_builtin_model_names_the_known_ones():
    with pytest.raises(ValueError, match="'builtin:tiny_mth' is not a builtin model.*builtin:tiny_math"):
        local_model("builtin:tiny_mth")
    assert local_model("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


def test_a_builtin_model_is_built_with_one_thread(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    threads = torch.get_num_threads()
    seen = []
    monkeypatch.setattr("gbpo.run.models.tiny.build_math", lambda folder: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        local_model("builtin:tiny_math")
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 2]


def test_a_missing_package_is_named_before_a_model_is_built(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check_model_name("builtin:tiny_math")
    monkeypatch.setattr("gbpo.shared.packages.find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"'builtin:tiny_words' .* needs reasoning_gym, .*pip install .*\[gemma\]"):
        check_model_name("builtin:tiny_words")
