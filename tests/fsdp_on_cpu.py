"""Run a script with FSDP2 on the CPU: `accelerate launch … fsdp_on_cpu.py SCRIPT [ARGUMENT …]`.

accelerate shards on accelerators alone and falls back to DDP on a CPU, though PyTorch's `fully_shard` works there. This
file corrects the distributed type, and passes the mixed precision to the plugin, as accelerate does on accelerators.
"""

import runpy
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

_init = AcceleratorState.__init__


def _init_sharded(self, *args, fsdp_plugin=None, **kwargs):
    _init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)


if __name__ == "__main__":
    AcceleratorState.__init__ = _init_sharded
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
