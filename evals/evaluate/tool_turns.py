"""Completions with several turns. TRL's own loop runs the tools, so that a test calls them as training does."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from trl import GRPOTrainer
from trl.chat_template_utils import parse_response
from trl.trainer.utils import shutdown_event_loop_in_daemon, start_event_loop_in_daemon

from gbpo.run.tools.named_tools import load_tools, tool_methods
from gbpo.run.tools.template import tool_template

from .checkpoint import Checkpoint
from .completion import Completion
from .prompt import Generate, Prompt
from .settings import Settings


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
    environment_factories = ()  # not None: each completion has its own tools

    def __init__(self, checkpoint: Checkpoint, settings: Settings, generate: Generate):
        self.processing_class, self.chat_template = tool_template(checkpoint.tokenizer)
        self._tokenizer = self.processing_class
        self.chat_template_kwargs = settings.chat_template_kwargs
        self.model = SimpleNamespace(config=checkpoint.description.config)
        self.max_completion_length = settings.max_tokens
        self.max_tool_calling_iterations = settings.tool_turns
        tools = load_tools(settings.run)
        self._shared, self._session = tools.functions, tools.session
        self._generate = lambda prompt_ids: generate([*map(Prompt, prompt_ids)])

    def complete(self, prompt_ids: Sequence[list[int]], sessions: Sequence[Any] = ()) -> list[Completion]:
        """One completion for each prompt.

        Args:
            prompt_ids: Token ids of each prompt.
            sessions: An object for each prompt, whose methods are the tools of its completion alone. By default, each
                completion gets a new session of the tools, if one of them needs it.
        """
        if not sessions and self._session is not None:
            sessions = [self._session() for _ in prompt_ids]
        shared = {tool.__name__: tool for tool in self._shared}
        dicts = [shared | tool_methods(session) for session in sessions] or [shared] * len(prompt_ids)
        self._env_tools = [list(tools.values()) for tools in dicts]
        self._batch_environments = range(len(dicts))
        self._async_tool_dicts = [
            {name: tool for name, tool in tools.items() if inspect.iscoroutinefunction(tool)} for tools in dicts
        ]
        self._sync_tool_dicts = [
            {name: tool for name, tool in tools.items() if not inspect.iscoroutinefunction(tool)} for tools in dicts
        ]
        ids = self._generate(list(prompt_ids))
        first = [
            [parse_response(self._tokenizer, own, prefix=prompt, tools=tools)]
            for own, prompt, tools in zip(ids, prompt_ids, self._env_tools, strict=True)
        ]
        if not any(dicts):
            return [Completion(own, [1] * len(own), messages) for own, messages in zip(ids, first, strict=True)]
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
