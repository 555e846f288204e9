"""Checks that the sampling options do not change the distribution from which completions are sampled."""

from typing import Any

from trl import GRPOConfig

# Sampling options that may be in generation_kwargs and do not change the distribution.
_UNBIASED = {"stop", "stop_token_ids", "include_stop_str_in_output", "max_tokens", "detokenize", "skip_special_tokens"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1, None),
    "min_p": (0.0, None),
    "typical_p": (1.0,),
    "repetition_penalty": (1.0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
}


def biased_sampling(args: GRPOConfig) -> str | None:
    """A warning if completions are sampled from another distribution than the policy that is trained, else None.

    Training computes π(token) over the whole vocabulary at `temperature`. Options such as `top_p` make the sampler
    choose some tokens more often than the ratio assumes, and others never.
    """
    sampler = {
        "top_p": args.top_p,
        "top_k": args.top_k,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
        "vllm_structured_outputs_regex": args.vllm_structured_outputs_regex,
        **(args.generation_kwargs or {}),
    }
    neutral = _NEUTRAL | {"temperature": (args.temperature,), "do_sample": (True,)}
    changed = [
        f"{name}={value!r}"
        for name, value in sampler.items()
        if name not in _UNBIASED and value is not None and value not in neutral.get(name, ())
    ]
    if not changed:
        return None
    return (
        f"{', '.join(changed)}: completions are sampled from another distribution than the policy that is trained, "
        "which biases every ratio. Write top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 and remove "
        "structured outputs and other sampling options."
    )


def check_sampling(args: GRPOConfig) -> None:
    """Raise `ValueError` if the sampling options hold a seed, which would replace the trainer's."""
    if args.use_vllm and "seed" in (args.generation_kwargs or {}):
        raise ValueError(
            f"generation_kwargs has seed={args.generation_kwargs['seed']!r}: all prompts of all generations would be "
            "sampled with the same noise. Remove this seed. The sampler then uses the trainer's seed."
        )
