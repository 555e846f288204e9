"""Sends a LoRA adapter to a vLLM server, in place of the merged weights of the whole model."""

import secrets
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from .vllm_client import SeededClient


def why_merged(config: Any) -> str | None:
    """Why vLLM cannot run this adapter, so that it must be merged; None if it can."""
    if not isinstance(config, LoraConfig):
        return f"the adapter is {config.peft_type.value}, not LoRA"
    if config.modules_to_save:
        return f"modules_to_save={list(config.modules_to_save)} trains whole modules"
    if config.use_dora:
        return "use_dora=True"
    if config.bias != "none":
        return f"bias={config.bias!r} trains biases"
    return None


class AdapterSync:
    """Saves the adapter to a folder and tells the server to load it, under a name that no adapter had before.

    The server must see the folder. It does not reuse what it has cached under the name of an earlier adapter. By the
    source of vLLM 0.30, an adapter that replaces another of its name (`load_inplace`) is read again for each token.

    Args:
        model: The model with the adapter.
        folder: The folder to save to. It holds only the latest adapter.
        client: The client of the main process; None in the others.
        gather: Within this context, the given parameters of a sharded model are whole.
    """

    def __init__(
        self,
        model: PeftModel,
        folder: Path,
        client: SeededClient | None,
        gather: Callable[[list[torch.nn.Parameter]], AbstractContextManager[Any]],
    ):
        self._model, self._folder, self._client, self._gather = model, folder, client, gather
        self._loaded: str | None = None
        run = [secrets.token_hex(4)]  # the server may have adapters of the same steps, of this run before a kill
        broadcast_object_list(run)
        self._run = run[0]

    def send(self, step: int) -> str:
        """Send the adapter of this optimiser step. All ranks call this together. Returns its name on the server."""
        name = f"gbpo-{self._run}-{step}"
        weights = self._weights()
        if self._client is not None:
            path = self._folder / name
            path.mkdir(parents=True, exist_ok=True)
            save_file(weights, path / "adapter_model.safetensors")
            self._model.peft_config[self._model.active_adapter].save_pretrained(str(path))
            self._client.load_adapter(name, path.absolute(), instead_of=self._loaded)
            self._client.use_adapter(name)
            for other in set(self._folder.iterdir()) - {path}:
                shutil.rmtree(other, ignore_errors=True)
        self._loaded = name
        return name

    def _weights(self) -> dict[str, torch.Tensor]:
        """The adapter's weights by PEFT's names, whole and on the CPU. Only the main process needs them."""
        trained = [p for p in self._model.parameters() if p.requires_grad]
        with self._gather(trained):
            found = {}
            for name, value in get_peft_model_state_dict(self._model).items():
                whole = value.full_tensor() if isinstance(value, DTensor) else value
                if self._client is not None:
                    found[name] = whole.detach().cpu().contiguous().clone()
        return found
