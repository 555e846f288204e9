"""`openenv:URL`: an environment that an OpenEnv server runs.

If the actions of the server are calls of tools, the model gets these tools. Otherwise it gets one tool, `step`, whose
arguments are the fields of an action.
"""

import functools
import inspect
import json
import urllib.request
from collections.abc import Callable
from typing import Any, Literal

_SECONDS = 10.0  # to connect
_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
_CALL_FIELDS = {"type", "tool_name", "arguments"}  # of an action that calls a tool
_NO_CONTENT = {"done", "reward", "metadata", "tool_name"}  # of an observation


class Session:
    """One session on a server. Each subclass has the tools of one server as methods.

    The columns of a row, without the prompt, are the arguments of the server's `reset`. The reward of an episode is the
    sum of the rewards of its steps.
    """

    _url: str

    def __init__(self):
        self._client: Any = None
        self._return, self._done = 0.0, False

    def reset(self, **row: Any) -> str:
        """Begin an episode."""
        if self._client is None:
            self._client = _client(self._url)
        arguments = {name: value for name, value in row.items() if name != "prompt"}
        result = _answered(self._url, lambda: self._client.reset(**arguments))
        self._return, self._done = float(result.reward or 0.0), bool(result.done)
        return _text(result.observation)

    def get_reward(self) -> float:
        """The sum of the rewards so far."""
        return self._return

    def close(self) -> None:
        """Give the session back to the server."""
        if self._client is not None:
            self._client.close()

    def _act(self, action: dict[str, Any]) -> str:
        if self._done:
            return "The episode is over."
        result = _answered(self._url, lambda: self._client.step(action))
        self._return += float(result.reward or 0.0)
        self._done = bool(result.done)
        return _text(result.observation)


def connect(url: str) -> Session:
    """A session on the server at `url`.

    Raises:
        ConnectionError: The server does not answer.
    """
    return _kind(url)()


@functools.cache
def _kind(url: str) -> type[Session]:
    """The sessions of a server, with its tools."""
    fields = _action_fields(url)
    if fields.keys() <= _CALL_FIELDS:
        client = _client(url)
        tools = _answered(url, lambda: client.step({"type": "list_tools"})).observation["tools"]
        client.close()
        methods = [
            method_of(
                tool["name"], tool.get("description") or "", tool.get("input_schema") or tool["inputSchema"], _call
            )
            for tool in tools
        ]
    else:
        methods = [
            method_of("step", "Act in the environment.", {"properties": fields}, lambda name, arguments: arguments)
        ]
    return type("OpenEnv", (Session,), {"_url": url, **{method.__name__: method for method in methods}})


def _action_fields(url: str) -> dict[str, Any]:
    address = f"{url.rstrip('/')}/schema"
    with _answered(url, lambda: urllib.request.urlopen(address, timeout=_SECONDS)) as answer:
        fields = json.load(answer)["action"].get("properties", {})
    return {name: field for name, field in fields.items() if name != "metadata"}


def _client(url: str) -> Any:
    from openenv.core.generic_client import GenericEnvClient

    client = GenericEnvClient(base_url=url, connect_timeout_s=_SECONDS).sync()
    _answered(url, client.connect)
    return client


def _answered(url: str, ask: Callable[[], Any]) -> Any:
    """The server's answer. Raises `ConnectionError` if there is none."""
    try:
        return ask()
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.startswith("websockets.")):
            raise  # the server refuses an action
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise ConnectionError(f"the OpenEnv server at {url} does not answer ({reason})") from error


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "call_tool", "tool_name": name, "arguments": arguments}


def method_of(
    name: str, description: str, schema: dict[str, Any], action: Callable[[str, dict[str, Any]], Any]
) -> Callable[..., str]:
    """A method with the signature and the docstring of a tool, from which the chat template describes it."""

    def method(self: Session, *args: Any, **kwargs: Any) -> str:
        bound = signature.bind(self, *args, **kwargs)  # the server has the defaults of the others
        return self._act(action(name, {key: bound.arguments[key] for key in fields if key in bound.arguments}))

    fields = schema.get("properties", {})
    required = schema.get("required", [key for key, field in fields.items() if "default" not in field])
    kinds = {key: _type(field) for key, field in fields.items()}
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for key in sorted(fields, key=lambda key: key not in required):
        default = inspect.Parameter.empty if key in required else fields[key].get("default")
        parameters.append(
            inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kinds[key])
        )
    signature = inspect.Signature(parameters, return_annotation=str)
    lines = [" ".join((description or name).split())]
    if fields:
        lines += ["", "Args:"]
        lines += [f"    {key}: {' '.join(str(field.get('description', key)).split())}" for key, field in fields.items()]
    method.__name__ = method.__qualname__ = name
    method.__doc__ = "\n".join(lines)
    method.__annotations__ = {**kinds, "return": str}
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


def _type(field: dict[str, Any]) -> Any:
    if "enum" in field:
        return Literal[tuple(field["enum"])]
    return _TYPES.get(field.get("type", ""), str)


def _text(observation: Any) -> str:
    """The text of an observation for the model."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, list):
        return "\n".join(map(_text, observation))
    if not isinstance(observation, dict):
        return json.dumps(observation)
    if observation.get("error"):
        return f"error: {_text(observation['error'])}"
    for key in ("result", "data", "content", "text"):  # the levels of the result of a tool
        if observation.get(key) is not None:
            return _text(observation[key])
    content = {key: value for key, value in observation.items() if key not in _NO_CONTENT and value is not None}
    return _text(next(iter(content.values()))) if len(content) == 1 else json.dumps(content)
