"""Runs a model on tensors that have shapes and types but no storage, and counts the bytes that it would use."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from ...trainer.passes.capabilities import CACHE

# transformers builds a mask for every pass on fake tensors, except for an attention that it does not know
_WITHOUT_MASK = "sdpa_without_mask"
# float32 copies of a tile of logits that TRL's LM head holds at once where it runs without Triton
_COPIES_OF_TILE = 7
AttentionInterface.register(_WITHOUT_MASK, sdpa_attention_forward)


class FakeModel:
    """A model whose tensors have no storage, but run.

    Args:
        module: A model on "meta", with or without adapters. Its tensors are replaced.
        dtype: The type of all weights during a pass. None keeps their own types.
        images: What the processor of a vision-language model makes of one row: `input_ids` (1, P), the images, and
            whatever else the model takes. Every row of a pass has these images. None runs rows of text.
    """

    def __init__(self, module: Any, dtype: torch.dtype | None = None, images: Mapping[str, torch.Tensor] | None = None):
        self._images = images
        self._mode = FakeTensorMode() if images is None else _IntegersAreReal(allow_non_fake_inputs=True)
        self.causal = module.get_base_model() if hasattr(module, "get_base_model") else module
        replaced: dict[Any, Any] = {}  # keys compare by identity, so tied weights stay tied

        def fake(tensor: Any) -> Any:
            if tensor not in replaced:
                is_parameter = isinstance(tensor, nn.Parameter)
                changed = is_parameter and tensor.is_floating_point() and dtype is not None
                empty = torch.empty(tensor.shape, dtype=dtype if changed else tensor.dtype)
                replaced[tensor] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
            return replaced[tensor]

        with self._mode:
            for part in module.modules():
                for tensors in (part._parameters, part._buffers):
                    tensors.update({name: fake(tensor) for name, tensor in tensors.items() if tensor is not None})

    @contextlib.contextmanager
    def _running(self, *, masked: bool = True) -> Iterator[None]:
        """Within this context the model runs. Kernels that need a GPU keep the same tensors as sdpa without a mask."""
        config = self.causal.config
        attention = config.get_text_config()._attn_implementation
        try:
            if attention != "eager":
                config._attn_implementation = "sdpa" if masked else _WITHOUT_MASK
            with self._mode, torch.device("cpu"):
                yield
        finally:
            config._attn_implementation = attention

    @torch.no_grad()
    def cached_values(self, tokens: int) -> int:
        """Number of keys and values in the KV cache of one row of `tokens` tokens, over all layers."""
        with self._running():
            ids = torch.zeros(1, tokens, dtype=torch.long)
            outputs = self.causal.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
            layers = outputs[CACHE].layers
            tensors = {id(t): t for layer in layers for t in tree_leaves(vars(layer)) if isinstance(t, torch.Tensor)}
            return sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point())

    def pass_bytes(
        self,
        rows: int,
        tokens: int,
        *,
        scored: int | None,
        fused: bool,
        masked: bool,
        autocast: torch.dtype | None,
        checkpointing: dict[str, Any] | None,
    ) -> int:
        """Peak bytes of a forward and backward pass, without weights and their gradients.

        Args:
            rows: Number of rows.
            tokens: Tokens of each row.
            scored: Tokens of each row on which the LM head runs; None runs the model without its LM head.
            fused: Whether the LM head has a Triton kernel.
            masked: Whether the pass has an attention mask.
            autocast: The type of mixed precision, or None.
            checkpointing: The arguments of activation checkpointing, or None to keep all activations.
        """
        model = self.causal
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        live = Live(model.parameters())
        with contextlib.ExitStack() as undo:
            for parameter in trained:
                undo.callback(parameter.register_post_accumulate_grad_hook(_drop_gradient).remove)
            if checkpointing is not None:
                model.activation_checkpointing_enable(checkpointing)
                undo.callback(model.activation_checkpointing_disable)
                if len(trained) < len(list(model.parameters())):
                    model.enable_input_require_grads()
                    undo.callback(model.disable_input_require_grads)
            undo.enter_context(self._running(masked=masked))
            with live:
                batch = self._batch(rows, tokens, masked=masked)
                with torch.autocast("cpu", dtype=autocast) if autocast else contextlib.nullcontext():
                    outputs = model.base_model(**batch, use_cache=False).last_hidden_state
                    if scored is not None:
                        states = outputs[:, -scored:].reshape(-1, outputs.size(-1))
                        head = model.get_output_embeddings().weight
                        outputs = _LMHead.apply(states, head, autocast or states.dtype, fused)
                outputs.backward(torch.zeros_like(outputs))
        return live.peak

    def _batch(self, rows: int, tokens: int, *, masked: bool) -> dict[str, torch.Tensor]:
        """Rows of equal length, with their images."""
        batch = {"input_ids": torch.zeros(rows, tokens, dtype=torch.long)}
        if masked:
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        if self._images is None:
            return batch
        shape = self._images["input_ids"].shape
        for name, value in self._images.items():
            if name == "attention_mask":
                batch[name][:, -1] = 0  # otherwise transformers would see that no mask is needed
            elif value.shape == shape:  # one number per token
                batch[name] = nn.functional.pad(value, (0, tokens - shape[1])).repeat(rows, 1)
            else:
                count = [rows, *[1] * (value.dim() - 1)]
                shape_of_all = [a * b for a, b in zip(count, value.shape, strict=True)]
                batch[name] = torch.zeros(shape_of_all) if value.is_floating_point() else value.repeat(count)
        return batch


class _IntegersAreReal(FakeTensorMode):
    """Only floating-point tensors are without storage.

    A vision tower reads the sizes of its images and the places of their tokens from tensors of integers.
    """

    def dispatch(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(isinstance(tensor, FakeTensor) or tensor.is_floating_point() for tensor in tensors):
            result = func(*args, **(kwargs or {}))
            if not any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in tree_leaves(result)):
                return result
        return super().dispatch(func, types, args, kwargs)


class _LMHead(torch.autograd.Function):
    """Allocates what TRL's LM head allocates: logits of one tile at a time, and float32 gradients."""

    @staticmethod
    def forward(ctx, states, weight, dtype, fused):
        ctx.save_for_backward(states, weight)
        ctx.tile = dtype, fused
        _tile(states, weight, dtype, fused)
        return states.new_zeros(len(states), dtype=torch.float32)

    @staticmethod
    def backward(ctx, *_):
        saved = ctx.saved_tensors
        gradients = [
            torch.zeros_like(tensor, dtype=torch.float32) if needed else None
            for tensor, needed in zip(saved, ctx.needs_input_grad, strict=False)
        ]
        tile = _tile(*saved, *ctx.tile)
        cast = [g if g is None else g.to(tensor.dtype) for g, tensor in zip(gradients, saved, strict=True)]
        del tile
        return *cast, None, None


def _tile(states: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype, fused: bool) -> list[torch.Tensor]:
    """Allocate what TRL's LM head needs for one tile, and return what it keeps until the end of its pass."""
    count = min(len(states), TOKEN_CHUNK_SIZE)
    logits = torch.empty(count, _CHUNKED_LOGPROB_CHUNK_SIZE, dtype=dtype)
    chunk = weight[:_CHUNKED_LOGPROB_CHUNK_SIZE].to(dtype)
    operands = [states[:count].to(dtype), chunk]
    if not fused:  # without Triton, float32 copies of the tile: logits, log-probs, probabilities, their gradients
        operands += [logits.new_empty(count, len(chunk), dtype=torch.float32) for _ in range(_COPIES_OF_TILE)]
    return [logits]


def _drop_gradient(parameter: nn.Parameter) -> None:
    parameter.grad = None


class Live(TorchDispatchMode):
    """Counts the bytes of all live tensors that are created inside this context.

    Args:
        known: Parameters to leave out.
    """

    def __init__(self, known: Iterator[nn.Parameter]):
        super().__init__()
        self._sizes = {parameter.untyped_storage()._cdata: 0 for parameter in known}
        self._bytes = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self._bytes += storage.nbytes()
        self.peak = max(self.peak, self._bytes)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self._bytes -= self._sizes.pop(key)
