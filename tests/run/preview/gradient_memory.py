"""One optimiser step of several passes in each process: what the gradients and DDP's buckets take, and the estimate.

`accelerate launch … gradient_memory.py MODEL OUTPUT [--field value …]`; rank 0 writes OUTPUT as JSON.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from gbpo import GBPOTrainer
from gbpo.run.data.loading import load
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.description import describe
from gbpo.run.preview import memory
from gbpo.run.processes.group import leave_together
from gbpo.run.recipe.parsing import parse

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny_math.yaml"
SIZES = "--per_device_train_batch_size 16 --steps_per_generation 2 --max_completion_length 4".split()
ALL_ROWS = ("--exact_speedups", "trim_padding", "arrange_rows")  # no row is skipped


def token_sum(completion_ids, **kwargs):
    return [float(sum(ids)) for ids in completion_ids]


def gradients(model):
    """Bytes of all gradients in this process, whole ones of FSDP included."""
    groups = {
        id(group): group
        for part in model.modules()
        if hasattr(part, "_get_fsdp_state") and (group := part._get_fsdp_state()._fsdp_param_group) is not None
    }
    if not groups:
        return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    found = []
    for one in (one for group in groups.values() for one in group.fsdp_params):
        whole = getattr(one, "_unsharded_param", None)
        found += [one.unsharded_accumulated_grad, whole.grad if whole is not None else None]
        found += [one.sharded_param.grad.to_local() if one.sharded_param.grad is not None else None]
    return sum(gradient.nbytes for gradient in found if gradient is not None)


def main(model, output, *flags):
    recipe = parse([str(RECIPE), "--model_name_or_path", model, *SIZES, *ALL_ROWS, *flags])
    description = describe(model, recipe)
    estimate = memory.estimate(recipe, memory.skeleton(recipe, description), prompt_tokens=9)
    args = recipe.training
    args.model_init_kwargs, args.output_dir = {"dtype": recipe.model.dtype}, f"{output}-run"
    train_set, _ = load(recipe.run, evaluation=False)
    buckets = []
    wrap = DistributedDataParallel.__init__

    def measured_wrap(self, *args, **kwargs):
        """Without the broadcast of the weights, whose buffers a thread of gloo may free later."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            wrap(self, *args, **{**kwargs, "init_sync": False})
        events = seen.profiler.kineto_results.events()
        buckets.append(sum(event.nbytes() for event in events if event.name() == "[memory]"))

    DistributedDataParallel.__init__ = measured_wrap
    trainer = GBPOTrainer(
        model,
        token_sum,
        args,
        train_dataset=PromptFormat.of(recipe).format(train_set, description.tokenizer),
        processing_class=description.tokenizer,
    )
    before = []  # bytes of gradients before each backward pass
    backward = trainer.accelerator.backward

    def measured_backward(loss, **kwargs):
        before.append(gradients(trainer.model_wrapped))
        return backward(loss, **kwargs)

    trainer.accelerator.backward = measured_backward
    trainer.train()
    if trainer.accelerator.is_main_process:
        parts = {part.name: [part.size, part.exact] for part in estimate.states}
        seen = {"strategy": trainer.accelerator.distributed_type.value, "before": before, "buckets": buckets}
        Path(output).write_text(json.dumps({"parts": parts, **seen}))


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
    leave_together()
