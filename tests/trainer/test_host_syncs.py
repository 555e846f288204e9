"""No value is read back from the device before a backward pass. On an accelerator each read waits for all earlier work.

transformers reads a mask to see whether it has padding. No input turns that off, so these reads are counted separately
and have an upper limit. Rows that need no mask have none.
"""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import varlen_attention
from rollouts import random_rollout, token_sum

READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "is_nonzero", "equal")


class Reads(TorchDispatchMode):
    """Records the operations that read a value back from the device, while `counts` is true."""

    def __init__(self):
        super().__init__()
        self.seen, self.by_transformers, self.counts = [], 0, True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if self.counts and (name in READS or by_mask):
            self.note(name)
        return function(*args, **(kwargs or {}))

    def note(self, name):
        if any(frame.filename.endswith("masking_utils.py") for frame in traceback.extract_stack(limit=40)):
            self.by_transformers += 1
        else:
            self.seen.append(name)

    def __enter__(self):
        """Also record `tolist` and `numpy`, which dispatch no operation for a CPU tensor."""
        self._undo = pytest.MonkeyPatch()
        for name in ("tolist", "numpy"):
            method = getattr(torch.Tensor, name)
            self._undo.setattr(
                torch.Tensor, name, lambda t, *a, n=name, m=method, **k: (self.note(n), m(t, *a, **k))[1]
            )
        return super().__enter__()

    def __exit__(self, *error):
        self._undo.undo()
        return super().__exit__(*error)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x.numpy(),
    ],
)
def test_a_read_is_counted(read):
    with Reads() as reads:
        read(torch.ones(3))
    assert reads.seen


def test_operations_that_stay_on_the_device_are_not_counted():
    x = torch.ones(3, requires_grad=True)
    with Reads() as reads:
        (x[torch.tensor([0, 2])].masked_fill(x[:2].detach() > 0, 0.0).sum() + x.clamp(min=1).exp().sum()).backward()
    assert not reads.seen


CASES = {
    "padded": {"left_out": ["share_prompts"]},
    "shared prompts": {},
    "packed": {"packed": True},
    "sequence level": {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    "adaptive entropy": {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_target": 1.0},
    "KL": {"beta": 0.1},
}


@pytest.mark.parametrize("case", CASES)
def test_no_read_before_the_backward(make_trainer, without, monkeypatch, case):
    """Reads are counted from the inputs of each micro-batch to its backward, also in steps that reuse a generation."""
    config = dict(CASES[case])
    left_out = config.pop("left_out", [])
    packed = config.pop("packed", False)
    if packed:
        varlen_attention.install(monkeypatch)
        config["model_init_kwargs"] = {"attn_implementation": varlen_attention.NAME}
    trainer = make_trainer(
        reward_funcs=token_sum,
        trainer={"rollout_func": random_rollout(1, 3, 5, 12)},
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        max_completion_length=16,
        num_iterations=2,
        max_steps=2,
        **config,
        **without(*left_out),
    )
    trainer.model.train()
    reads, by_transformers, losses = [], [], []
    compute_loss, backward = trainer.compute_loss, trainer.accelerator.backward

    def counted(*args, **kwargs):
        with Reads() as mode:
            trainer.accelerator.backward = lambda loss, **options: stopped(mode, loss, **options)
            loss = compute_loss(*args, **kwargs)
            reads.extend(mode.seen)
            by_transformers.append(mode.by_transformers)
            losses.append(loss)
            trainer.accelerator.backward = backward
        return loss

    def stopped(mode, loss, **options):
        mode.counts = False
        backward(loss, **options)
        mode.counts = True

    trainer.compute_loss = counted
    trainer.train()
    assert len(losses) == 8 and sum(loss != 0 for loss in losses) >= 4
    assert reads == []
    passes = sum(map(len, trainer._buffered_inputs))
    masked = "share_prompts" in trainer.speedups and not packed
    assert sum(by_transformers) <= (2 * 2 * passes if masked else 0)  # per pass: its prompts and its rows, in two steps
    assert not packed or all(type(call["longest"]) is int for call in varlen_attention.calls)
