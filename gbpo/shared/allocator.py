"""Settings of CUDA's caching allocator."""

import os

_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def use_expandable_segments(*, vllm_needs_fixed: bool) -> None:
    """Let CUDA's caching allocator grow its segments, so that passes of many sizes do not fragment the memory.

    torch reads this setting from the environment when it first uses CUDA, so call this before. A setting of the user
    stays as it is.

    Args:
        vllm_needs_fixed: Whether vLLM runs in this process with its sleep mode or with tensor parallelism. The memory
            pool of the sleep mode does not work with segments that grow. Under tensor parallelism, vLLM's all-reduce
            shares buffers by CUDA's IPC, which does not take such memory either: the process would exit without a
            traceback (vllm-project/vllm#42609).
    """
    if not vllm_needs_fixed and not any(os.environ.get(name) for name in _VARIABLES):
        os.environ[_VARIABLES[0]] = "expandable_segments:True"
