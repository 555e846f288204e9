"""What cannot be used together with tools or an environment in TRL 1.16."""

from trl import GRPOConfig


def check_possible(args: GRPOConfig, given: str, *, vote_rounds: int | None, sharded: bool) -> None:
    """Refuse what cannot be used with tools or an environment.

    Args:
        args: The configuration of the trainer.
        given: The field that the recipe has, `tools` or `environment`.
        vote_rounds: Further rounds of completions that a reward asks for.
        sharded: Whether the weights are split over the processes.

    Raises:
        ValueError: Something in the recipe cannot be used with this field.
    """
    waits = (
        "TRL 1.16 takes as many turns on each process as its own completions need, but all processes must generate "
        "together here, so they would wait for each other for ever"
    )
    reasons = {
        "generate_ahead": "the later turns of a completion would be sampled with newer weights",
        "sampling_dtype": "the log-probs of the later turns of a completion are not kept",
    }
    for name, reason in reasons.items():
        if value := getattr(args, name, None):
            raise ValueError(f"{name}={value} with {given}: {reason}. Remove {name} or {given}.")
    if vote_rounds:
        raise ValueError(
            f"A reward asks for {vote_rounds} more round(s) of votes, but {given} would keep the state of the first "
            f"round, which would change the later votes. Remove votes or {given}."
        )
    if args.use_vllm and args.vllm_mode == "server" and args.world_size > 1:
        raise ValueError(
            f"vllm_mode='server' with {given} on {args.world_size} processes: {waits}. Write vllm_mode: colocate, or "
            "use one process."
        )
    if args.use_vllm and args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size > 1:
        raise ValueError(
            f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size} with {given}: {waits}. Write "
            "vllm_tensor_parallel_size: 1."
        )
    if sharded and not args.use_vllm:
        raise ValueError(
            f"{given} with weights that are split over {args.world_size} processes: {waits}. Write use_vllm: true, or "
            "launch without ZeRO-3 and FSDP."
        )
