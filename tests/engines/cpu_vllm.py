"""launch/gbpo.py on the CPU build of vLLM, whose sync of weights TRL does not know. Not for use outside these tests.

CPU_VLLM_WITHHOLD=TEXT keeps from the engine the weights whose names contain the text; those of an adapter become 0.
"""

import functools
import os
import runpy
import sys
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch"


def patch():
    import torch
    import vllm._custom_ops
    import vllm.model_executor.layers.utils
    from safetensors.torch import save_file
    from trl.generation import vllm_generation

    from gbpo.trainer.sampling import adapter_sync

    # linear layers that are not repacked for other kernels take new weights
    vllm._custom_ops._supports_onednn = False
    vllm.model_executor.layers.utils.check_cpu_sgl_kernel = lambda *shape_and_dtype: False
    vllm_generation.LLM = functools.partial(vllm_generation.LLM, enforce_eager=True)
    withheld = os.environ.get("CPU_VLLM_WITHHOLD")
    if withheld:
        params = vllm_generation.VLLMGeneration._iter_named_params
        vllm_generation.VLLMGeneration._iter_named_params = lambda generation: (
            (name, p) for name, p in params(generation) if withheld not in name
        )
        adapter_sync.save_file = lambda weights, path: save_file(
            {name: torch.zeros_like(p) if withheld in name else p for name, p in weights.items()}, path
        )


if __name__ == "__main__":
    sys.path.insert(0, str(LAUNCH.parent))
    from evals.bench.vllm_server import weights_by_file

    patch()
    sys.argv[0] = str(LAUNCH / "gbpo.py")
    with weights_by_file():
        runpy.run_path(sys.argv[0], run_name="__main__")
