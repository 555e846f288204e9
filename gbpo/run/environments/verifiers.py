"""`verifiers:NAME`: a taskset of the package verifiers. Its tasks are the rows, and its rewards score a completion.

The package has a loop of its own, which asks a server for each turn and returns no tokens of TRL's model. This module
uses the other parts: the prompts, the tools and the rewards. It refuses tasksets that need the loop or a sandbox.
"""

import asyncio
import functools
import importlib
import inspect
import json
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from datasets import Dataset

from .openenv import method_of

VERIFIERS = "verifiers:"
INSTALL = "pip install 'verifiers>=0.4,<0.5'"
_INFINITE = 2048  # rows of a taskset without an end, if dataset_kwargs has no size


class UnusableTasksetError(ValueError):
    """A taskset whose tasks cannot be read or cannot be run."""


class Tasks:
    """The tasks of one taskset, which are read once per process.

    Args:
        spec: The field `environment` of the recipe.
        taskset: An object of the package.
    """

    def __init__(self, spec: str, taskset: Any):
        self.spec, self.bounded = spec, taskset.bounded
        self.kind = type(taskset).task_type()
        self._unread, self._read = iter(taskset), []  # type: ignore[var-annotated]

    def first(self, count: int | None) -> list[Any]:
        """The first tasks, or all of them."""
        while count is None or len(self._read) < count:
            try:
                task = next(self._unread, None)
            except Exception as error:  # a taskset may raise any error
                raise UnusableTasksetError(
                    f"environment={self.spec!r}: reading task {len(self._read)} raised {_one_line(error)}, so there "
                    "would be no rows. Correct the taskset or environment_kwargs."
                ) from None
            if task is None:
                break
            self._check(task)
            self._read.append(task)
        return self._read[:count]

    def __getitem__(self, index: int) -> Any:
        return self.first(index + 1)[index]

    def _check(self, task: Any) -> None:
        """Raise `ValueError` for a task that TRL's loop cannot run."""
        data = task.data
        messages = [] if data.prompt is None or isinstance(data.prompt, str) else data.prompt
        needs_runtime = [hook.__name__ for hook in task.hooks("reward") + task.hooks("metric") if _needs_runtime(hook)]
        reasons = {
            "has no prompt": not data.prompt,
            "has a prompt with images": any(not isinstance(message.content, str) for message in messages),
            "has a prompt that does not end with the user": bool(messages) and messages[-1].role != "user",
            "needs a container": task.NEEDS_CONTAINER or data.image is not None,
            "needs files in a sandbox": bool(data.skills or data.artifacts),
            f"scores in a sandbox ({', '.join(needs_runtime)})": bool(needs_runtime),
            "has no reward": not (task.hooks("reward") or task.config.judges),
            "ends or changes the turns itself": bool(task.hooks("stop") or _decorated(task, "intercept")),
        }
        reason = next((text for text, holds in reasons.items() if holds), None)
        if reason is not None:
            raise _refused(self.spec, f"task {data.idx} {reason}")


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _decorated(owner: Any, mark: str) -> list[Any]:
    return importlib.import_module("verifiers.v1.utils.decorators").discover_decorated(owner, mark)


def _refused(spec: str, reason: str) -> UnusableTasksetError:
    return UnusableTasksetError(
        f"environment={spec!r} cannot be joined to TRL's loop: {reason}. gbpo uses prompts, tools and rewards of a "
        "taskset, without a sandbox and without the loops of verifiers. Write a class with reset, tools and get_reward "
        "around the task, and give its dotted path."
    )


def open_tasks(spec: str, options: dict[str, Any]) -> Tasks:
    """The tasks of the environment `spec`.

    Args:
        spec: The field `environment` of the recipe.
        options: Fields of the configuration of the taskset.

    Raises:
        ValueError: The package or the taskset is missing, the options do not fit, or gbpo cannot run the taskset.
    """
    return _opened(spec, json.dumps(options, sort_keys=True, default=repr))


@functools.cache
def _opened(spec: str, options: str) -> Tasks:
    name = spec.removeprefix(VERIFIERS)
    if find_spec("verifiers") is None or find_spec("verifiers.v1") is None:
        raise ValueError(f"environment={spec!r} needs the package verifiers 0.4, which is not installed: {INSTALL}.")
    vf = importlib.import_module("verifiers.v1")
    try:
        vf.import_taskset(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"environment={spec!r} is not installed ({_one_line(error)}) Install it with pip install FOLDER, or from "
            f"the Environments Hub with prime env install {name if '/' in name else f'OWNER/{name}'}."
        ) from None
    if vf.environment_class(name) is not vf.SingleAgentEnv:
        raise _refused(spec, f"{vf.environment_class(name).__name__} runs its episodes with a loop of its own")
    if vf.default_harness_id(name) == name:
        raise _refused(spec, "it has a harness of its own, which runs the turns in a sandbox")
    try:
        config = vf.taskset_config_type(name).model_validate({**json.loads(options), "id": name})
        taskset = vf.load_taskset(config)
    except Exception as error:  # a taskset may raise any error
        raise ValueError(
            f"environment_kwargs={options} do not fit {spec!r}: {_one_line(error)} Correct them."
        ) from None
    kind = type(taskset).task_type()
    if type(taskset).toolsets(config):
        raise _refused(spec, "its completions share the state of its tools")
    base = vf.Task
    hooks = [name for name in ("setup", "finalize", "stage_verifier") if getattr(kind, name) is not getattr(base, name)]
    if hooks:
        raise _refused(spec, f"{kind.__name__}.{hooks[0]} works in a sandbox")
    return Tasks(spec, taskset)


def rows_of(tasks: Tasks, size: int | None = None) -> Dataset:
    """The tasks as rows with the columns `prompt`, `task` and, if each task has one, `answer`.

    Args:
        tasks: The tasks.
        size: Number of rows. The default is all tasks, or 2048 of a taskset without an end.
    """
    chosen = tasks.first(size if size is not None or tasks.bounded else _INFINITE)
    columns = {"prompt": [_prompt(task.data) for task in chosen], "task": list(range(len(chosen)))}
    answers = [getattr(task.data, "answer", None) for task in chosen]
    if all(isinstance(answer, str) for answer in answers):
        columns["answer"] = answers
    return Dataset.from_dict(columns)


def _prompt(data: Any) -> list[dict[str, str]]:
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return [*system, {"role": "user", "content": data.prompt}]
    return [*system, *({"role": message.role, "content": message.content} for message in data.prompt)]


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
        prompt = [(message, False) for message in _prompt(task.data)]
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
        for tool in _decorated(toolset, "tool"):
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
        raise _refused(spec, "its tools run on a server, whose state all completions share")
    methods = {}
    for name, tool in _named_tools(toolsets):
        description = (inspect.getdoc(tool) or name).strip()
        try:
            schema = _adapter(tool).json_schema()
        except Exception as error:  # pydantic raises several types
            raise _refused(spec, f"the arguments of the tool {name} cannot be described ({_one_line(error)})") from None
        methods[name] = method_of(name, description, schema, lambda name, arguments: (name, arguments))
    rewards = [hook.__name__ for hook in first[0].hooks("reward")] if first else []
    about = f"{spec}, {'tasks with tools' if methods else 'tasks of one turn'}, rewards {', '.join(rewards)}"
    return type("Verifiers", (Rollout,), {"_tasks": tasks, "about": about, **methods})


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:300]
