"""Completions with tools. TRL's own loop runs the tools, so that a test calls them as training does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from trl import GRPOTrainer
from trl.chat_template_utils import parse_response
from trl.trainer.utils import shutdown_event_loop_in_daemon, start_event_loop_in_daemon

from gbpo.run.tools.named_tools import Tools, load_tools, tool_methods
from gbpo.run.tools.template import tool_template

from .checkpoint import Checkpoint
from .completion import Completion
from .settings import Settings

Generate = Callable[[list[list[int]]], list[list[int]]]


class ToolTurns:
    """The part of TRL's trainer that calls tools and continues completions after their answers.

    Args:
        checkpoint: The model.
        settings: The tools, the number of turns and of tokens.
        generate: Continues prompts of token ids.
    """

    _tool_call_loop = GRPOTrainer._tool_call_loop
    _get_tool_suffix_ids = GRPOTrainer._get_tool_suffix_ids
    use_vllm = _is_vlm = False
    environment_factories = None

    def __init__(self, checkpoint: Checkpoint, settings: Settings, generate: Generate):
        self.processing_class, self.chat_template = tool_template(checkpoint.tokenizer)
        self._tokenizer = self.processing_class
        self.chat_template_kwargs = settings.chat_template_kwargs
        self.model = SimpleNamespace(config=checkpoint.description.config)
        self.max_completion_length = settings.max_tokens
        self.max_tool_calling_iterations = settings.tool_turns
        self._tools, self._generate = load_tools(settings.run), generate

    def complete(self, prompt_ids: Sequence[list[int]]) -> list[Completion]:
        """One completion for each prompt."""
        dicts = [_by_name(self._tools) for _ in prompt_ids]
        self.tools = list(dicts[0].values())
        self._async_tool_dicts = [
            {name: tool for name, tool in tools.items() if inspect.iscoroutinefunction(tool)} for tools in dicts
        ]
        self._sync_tool_dicts = [
            {name: tool for name, tool in tools.items() if not inspect.iscoroutinefunction(tool)} for tools in dicts
        ]
        ids = self._generate(list(prompt_ids))
        first = [
            [parse_response(self._tokenizer, own, prefix=prompt, tools=self.tools)]
            for own, prompt in zip(ids, prompt_ids, strict=True)
        ]
        thread, self.async_loop, ready = start_event_loop_in_daemon(name="tools")
        ready.wait()
        try:
            written, messages, ids, *_ = self._tool_call_loop(
                [[] for _ in ids], list(prompt_ids), ids, first, None, None, {}
            )
        finally:
            shutdown_event_loop_in_daemon(thread, self.async_loop)
        return [Completion(*each) for each in zip(ids, written, messages, strict=True)]

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        return self._generate(prompt_ids), None


def _by_name(tools: Tools) -> dict[str, Callable[..., Any]]:
    """The tools of one completion."""
    shared = {tool.__name__: tool for tool in tools.functions}
    return shared if tools.session is None else shared | tool_methods(tools.session())
