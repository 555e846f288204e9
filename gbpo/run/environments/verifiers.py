"""`verifiers:NAME`: a taskset of the package verifiers. Its tasks are the rows, and its rewards score a completion.

The package has a loop of its own, which asks a server for each turn and returns no tokens of TRL's model. This module
uses the other parts: the prompts, the tools and the rewards.
"""

import asyncio
import importlib
import inspect
import json
from collections.abc import Iterable
from typing import Any

from ..data.verifiers_tasks import Tasks, decorated, one_line, open_tasks, prompt_of, refused
from .openenv import method_of


class Rollout:
    """One completion of a task. Each subclass has the tools of one taskset as methods."""

    about: str
    _tasks: Tasks

    def __init__(self):
        self._task: Any = None
        self._state: Any = None
        self._tools: dict[str, Any] = {}

    def reset(self, task: int, **row: Any) -> None:
        """Begin the task with new tools and a new state."""
        vf_state = importlib.import_module("verifiers.v1.state")
        self._task = self._tasks[task]
        self._state = vf_state.state_cls(type(self._task))()
        toolsets = _toolsets(self._task)
        asyncio.run(_set_up(toolsets, self._task.data, self._state))
        self._tools = dict(_named_tools(toolsets))

    def get_reward(self, completion: list[dict[str, Any]]) -> Any:
        """A coroutine with the sum of the rewards of the task, each times its weight."""
        return self._score(completion)

    async def _score(self, completion: list[dict[str, Any]]) -> float:
        vf = importlib.import_module("verifiers.v1")
        task = self._task
        trace = vf.Trace(
            task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
            agent=vf.AgentInfo(config=vf.AgentConfig()),
            state=self._state,
            is_completed=True,
            ok=True,
        )
        prompt = [(message, False) for message in prompt_of(task.data)]
        for message, sampled in prompt + [(message, message["role"] == "assistant") for message in _typed(completion)]:
            parent = len(trace.nodes) - 1 if trace.nodes else None
            trace.nodes.append(vf.MessageNode(parent=parent, message=message, sampled=sampled))
        await task.score(trace)
        return trace.reward

    async def _act(self, call: tuple[str, dict[str, Any]]) -> str:
        from pydantic_core import ArgsKwargs, to_json

        name, arguments = call
        result = _adapter(self._tools[name]).validate_python(ArgsKwargs((), arguments))
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, str) else to_json(result, fallback=str).decode()


def _toolsets(task: Any) -> list[Any]:
    return type(task).toolsets(task.config)


async def _set_up(toolsets: list[Any], data: Any, state: Any) -> None:
    for toolset in toolsets:
        if isinstance(state, toolset._state_cls):
            toolset._inert_state = state  # what `toolset.state` is outside a server
        await toolset.setup()
        await toolset.setup_task(data)


def _named_tools(toolsets: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    """The tools by the names that the harnesses of verifiers give them."""
    for toolset in toolsets:
        prefix = f"{toolset.server_name}_" if toolset.server_name else ""
        for tool in decorated(toolset, "tool"):
            yield prefix + (getattr(tool, "tool_name", None) or tool.__name__), tool


def _adapter(tool: Any) -> Any:
    """What describes the arguments of a tool, checks them and calls it."""
    from pydantic import TypeAdapter

    return TypeAdapter(tool)


def _typed(completion: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of TRL in the form of verifiers, in which each call has an id and its arguments are text."""
    messages: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for turn, message in enumerate(completion):
        typed = {key: message.get(key) for key in ("role", "content")}
        if message["role"] == "assistant":
            typed["reasoning_content"] = message.get("reasoning_content")
            calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
            open_calls = [f"call_{turn}_{index}" for index in range(len(calls))]
            typed["tool_calls"] = [
                {"id": identity, "name": call["name"], "arguments": json.dumps(call["arguments"])}
                for identity, call in zip(open_calls, calls, strict=True)
            ] or None
        if message["role"] == "tool":
            typed |= {"tool_call_id": open_calls.pop(0) if open_calls else "", "name": message.get("name")}
        messages.append(typed)
    return messages


def connect(spec: str, options: dict[str, Any]) -> type[Rollout]:
    """The class of the completions of the environment `spec`, with its tools.

    Raises:
        ValueError: As `open_tasks`; or a tool runs elsewhere, or its arguments cannot be described.
    """
    tasks = open_tasks(spec, options)
    first = tasks.first(1)
    toolsets = _toolsets(first[0]) if first else []
    if any(getattr(toolset.config, "url", None) for toolset in toolsets):
        raise refused(spec, "its tools run on a server, whose state all completions share")
    methods = {}
    for name, tool in _named_tools(toolsets):
        description = (inspect.getdoc(tool) or name).strip()
        try:
            schema = _adapter(tool).json_schema()
        except Exception as error:  # pydantic raises several types
            raise refused(spec, f"the arguments of the tool {name} cannot be described ({one_line(error)})") from None
        methods[name] = method_of(name, description, schema, lambda name, arguments: (name, arguments))
    rewards = [hook.__name__ for hook in first[0].hooks("reward")] if first else []
    about = f"{spec}, {'tasks with tools' if methods else 'tasks of one turn'}, rewards {', '.join(rewards)}"
    return type("Verifiers", (Rollout,), {"_tasks": tasks, "about": about, **methods})
