"""KL divergence between two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gbpo.run.data.prompts import PromptFormat

from .batches import batches
from .checkpoint import Checkpoint, memory_released
from .prompt import Prompt, model_inputs

_MAX_LOGITS = 2**27  # per batch and model


@torch.inference_mode()
def divergence(
    policy: Checkpoint,
    reference: Checkpoint,
    prompts: Sequence[Prompt],
    completions: Sequence[list[int]],
    form: PromptFormat,
    batch_size: int,
    written: Sequence[list[int]] | None = None,
) -> float:
    r"""KL divergence of the policy from a reference model along given completions, in nats per completion.

    The result is the mean over completions y of Σ_t KL(π(· | x, y_<t) ‖ π_ref(· | x, y_<t)), at temperature 1 and over
    the whole vocabulary.

    If the completions were sampled from π at temperature 1 and top_p 1, the expected result is the KL divergence
    between the distributions of completions (chain rule). This estimate has less variance than log π(y) − log π_ref(y).
    With other sampling settings, the result is the same sum over the prefixes of the sampled completions, but not the
    KL divergence between the distributions of completions.

    Args:
        policy: Model π.
        reference: Model π_ref, with the same tokenizer.
        prompts: The prompts x, one per completion.
        completions: Token ids y.
        form: The format of the prompts.
        batch_size: Maximum number of completions per batch.
        written: For each token of each completion, 1 if it counts and 0 if not, because a tool wrote it.
    """
    with memory_released():
        pair = policy.load(), reference.load()
        lengths = [len(prompt.ids) + len(own) for prompt, own in zip(prompts, completions, strict=True)]
        order = sorted(range(len(prompts)), key=lambda i: -lengths[i])
        vocabulary = policy.description.config.get_text_config().vocab_size
        size = max(1, min(batch_size, _MAX_LOGITS // (max(lengths) * vocabulary)))
        total = 0.0
        for batch in batches(order, size, "divergence"):
            rows = [prompts[i] for i in batch], [completions[i] for i in batch]
            inputs = model_inputs(*rows, "right", form, policy, pair[0].device)
            log_pi, log_ref = (model(**inputs).logits.float().log_softmax(-1) for model in pair)
            # (completions, tokens)
            kl = torch.nn.functional.kl_div(log_ref, log_pi, reduction="none", log_target=True).sum(-1)
            for row, i in enumerate(batch):
                start = len(prompts[i].ids) - 1  # the last prompt token predicts the first completion token
                counts = torch.tensor([1] * len(completions[i]) if written is None else written[i], device=kl.device)
                total += (kl[row, start : start + len(completions[i])] * counts).sum().item()
        return total / len(prompts)
