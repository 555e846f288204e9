"""The tasks of a taskset of the package verifiers, as rows. `verifiers:NAME` is the name of the data set.

Tasksets that need the loops or the sandboxes of the package are refused here.
"""

import functools
import importlib
import inspect
import json
from importlib.util import find_spec
from typing import Any

from datasets import Dataset

from ...shared.packages import install_command
from ..recipe.arguments import VERIFIERS

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
        self._unread, self._read = iter(taskset), []  # type: ignore[var-annotated]

    def first(self, count: int | None) -> list[Any]:
        """The first tasks, or all of them."""
        while count is None or len(self._read) < count:
            try:
                task = next(self._unread, None)
            except Exception as error:  # a taskset may raise any error
                raise UnusableTasksetError(
                    f"environment={self.spec!r}: reading task {len(self._read)} raised {one_line(error)}, so there "
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
            "ends or changes the turns itself": bool(task.hooks("stop") or decorated(task, "intercept")),
        }
        reason = next((text for text, holds in reasons.items() if holds), None)
        if reason is not None:
            raise refused(self.spec, f"task {data.idx} {reason}")


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def decorated(owner: Any, mark: str) -> list[Any]:
    """The methods that the package has marked, for example as `tool`."""
    return importlib.import_module("verifiers.v1.utils.decorators").discover_decorated(owner, mark)


def refused(spec: str, reason: str) -> UnusableTasksetError:
    """The error about a taskset that needs what gbpo does not have."""
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
        install = install_command("verifiers")
        raise ValueError(f"environment={spec!r} needs the package verifiers 0.4, which is not installed: {install}.")
    vf = importlib.import_module("verifiers.v1")
    try:
        vf.import_taskset(name)
        kind = vf.task_type(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"environment={spec!r} is not installed ({one_line(error)}) Install it with pip install FOLDER, or from "
            f"the Environments Hub with prime env install {name if '/' in name else f'OWNER/{name}'}."
        ) from None
    except Exception as error:  # a module may raise any error
        raise ValueError(
            f"environment={spec!r} has no taskset: {one_line(error)} Write the name of a module that exports one."
        ) from None
    if vf.environment_class(name) is not vf.SingleAgentEnv:
        raise refused(spec, f"{vf.environment_class(name).__name__} runs its episodes with a loop of its own")
    if vf.default_harness_id(name) == name:
        raise refused(spec, "it has a harness of its own, which runs the turns in a sandbox")
    try:
        config = vf.taskset_config_type(name).model_validate({**json.loads(options), "id": name})
        taskset = vf.load_taskset(config)
    except Exception as error:  # a taskset may raise any error
        raise ValueError(f"environment_kwargs={options} do not fit {spec!r}: {one_line(error)} Correct them.") from None
    if type(taskset).toolsets(config):
        raise refused(spec, "its completions share the state of its tools")
    base = vf.Task
    hooks = [name for name in ("setup", "finalize", "stage_verifier") if getattr(kind, name) is not getattr(base, name)]
    if hooks:
        raise refused(spec, f"{kind.__name__}.{hooks[0]} works in a sandbox")
    return Tasks(spec, taskset)


def rows_of(tasks: Tasks, size: int | None = None) -> Dataset:
    """The tasks as rows with the columns `prompt`, `task` and, if each task has one, `answer`.

    Args:
        tasks: The tasks.
        size: Number of rows. The default is all tasks, or 2048 of a taskset without an end.
    """
    chosen = tasks.first(size if size is not None or tasks.bounded else _INFINITE)
    columns = {"prompt": [prompt_of(task.data) for task in chosen], "task": list(range(len(chosen)))}
    answers = [getattr(task.data, "answer", None) for task in chosen]
    if all(isinstance(answer, str) for answer in answers):
        columns["answer"] = answers
    return Dataset.from_dict(columns)


def prompt_of(data: Any) -> list[dict[str, str]]:
    """The messages of a task, from its data."""
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return [*system, {"role": "user", "content": data.prompt}]
    return [*system, *({"role": message.role, "content": message.content} for message in data.prompt)]


def one_line(error: Exception) -> str:
    """The type and the text of an error, at most 300 characters."""
    return " ".join(f"{type(error).__name__} {error}".split())[:300]
