"""Small objects in place of an accelerator and of a pass, for tests of the trainer's parts."""

import torch
from accelerate.utils import DistributedType

from gbpo.trainer.passes.batch import Pass, rows_of


class FakeAccelerator:
    """One rank of several. The tensors of the other ranks are given in advance.

    Args:
        others: For each collective call, in order, the tensors of the other ranks.
        distributed_type: As in accelerate.
    """

    device = torch.device("cpu")

    def __init__(self, *others, distributed_type=DistributedType.NO):
        self.others, self.distributed_type = list(others), distributed_type
        self.process_index, self.num_processes = 0, 1 + (len(others[0]) if others else 0)

    def _all_ranks(self, tensor):
        others = self.others.pop(0) if self.others else []
        return [tensor, *(torch.tensor(other).to(tensor).view_as(tensor) for other in others)]

    def gather(self, tensor):
        return torch.cat(self._all_ranks(tensor))

    def reduce(self, tensor, reduction):
        assert reduction == "sum"
        return torch.stack(self._all_ranks(tensor)).sum(0)


def batch_of(prompts, completions, advantages, width=None, **entries):
    """A scored micro-batch as TRL makes it, from lists of token ids; 0 is the padding token.

    Args:
        prompts: Token ids of each row.
        completions: Token ids of each row.
        advantages: One per row.
        width: Columns of the completions; by default those of the longest.
        entries: Further entries of the batch.
    """
    longest, width = max(map(len, prompts)), width or max(map(len, completions))
    return {
        "prompt_ids": torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts]),
        "prompt_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
        "completion_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids in completions]),
        "completion_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in completions]),
        "advantages": torch.tensor(advantages),
        **entries,
    }


def pass_of(*rows, **entries):
    """A pass of the rows of `batch_of`."""
    batch = batch_of(*rows, **entries)
    return Pass.from_batch({**batch, "rows": rows_of(batch)})
