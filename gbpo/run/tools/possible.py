"""What cannot be used together with tools in TRL 1.16."""

from trl import GRPOConfig


def check_possible(args: GRPOConfig, *, vote_rounds: int | None, sharded: bool) -> None:
    """Refuse what cannot be used with tools.

    Args:
        args: The configuration of the trainer.
        vote_rounds: Further rounds of completions that a reward asks for.
        sharded: Whether the weights are split over the processes.

    Raises:
        ValueError: Something in the recipe cannot be used with tools.
    """
    waits = (
        "TRL 1.16 takes as many turns on each process as its own completions need, but all processes must generate "
        "together here, so they would wait for each other for ever"
    )
    if getattr(args, "generate_ahead", 0):
        raise ValueError(
            f"generate_ahead={args.generate_ahead} with tools: the answers come in several turns, and the later turns "
            "would be sampled with newer weights. Write generate_ahead: 0, or remove tools."
        )
    if vote_rounds:
        raise ValueError(
            f"A reward asks for {vote_rounds} more round(s) of votes, but tools keep their state from the first round, "
            "which would change the later votes. Remove votes or tools."
        )
    if args.use_vllm and args.vllm_mode == "server" and args.world_size > 1:
        raise ValueError(
            f"vllm_mode='server' with tools on {args.world_size} processes: {waits}. Write vllm_mode: colocate, or use "
            "one process."
        )
    if args.use_vllm and args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size > 1:
        raise ValueError(
            f"vllm_tensor_parallel_size={args.vllm_tensor_parallel_size} with tools: {waits}. Write "
            "vllm_tensor_parallel_size: 1."
        )
    if sharded and not args.use_vllm:
        raise ValueError(
            f"Tools with weights that are split over {args.world_size} processes: {waits}. Write use_vllm: true, or "
            "launch without ZeRO-3 and FSDP."
        )
