"""Settings of CUDA's caching allocator."""

import os

_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def use_expandable_segments(*, vllm_sleeps: bool) -> None:
    """Let CUDA's caching allocator grow its segments, so that passes of many sizes do not fragment the memory.

    torch reads this setting from the environment when it first uses CUDA, so call this before. A setting of the user
    stays as it is.

    Args:
        vllm_sleeps: Whether vLLM's sleep mode is on. Its memory pool does not work with segments that grow.
    """
    if not vllm_sleeps and not any(os.environ.get(name) for name in _VARIABLES):
        os.environ[_VARIABLES[0]] = "expandable_segments:True"
