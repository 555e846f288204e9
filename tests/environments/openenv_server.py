"""An OpenEnv server with a code word: `openenv_server.py PORT tools` or `openenv_server.py PORT actions`.

With `tools`, the actions are calls of the tools `ask` and `answer`. With `actions`, an action has the field `code`; an
empty code asks for a letter. The reward of asking is 0.125, and that of the right answer is 1.
"""

import random
import sys

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server import Action, Environment, MCPEnvironment, Observation, State, create_app
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from pydantic import Field


class Guess(Action):
    code: str = Field(default="", description="The code, or nothing to ask for a letter.")


class Shown(Observation):
    text: str = ""


class Word:
    def __init__(self):
        self.code, self.shown = "", 0

    def begin(self, seed):
        letters = random.Random(seed)
        self.code, self.shown = "".join(letters.choice("abcdefgh") for _ in range(2)), 0

    def ask(self):
        self.shown += 1
        return (self.code + "-")[min(self.shown, 3) - 1]


class Actions(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.word = Word()

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.word.begin(seed)
        return Shown(text="Find the code.")

    def step(self, action, timeout_s=None, **kwargs):
        if not action.code:
            return Shown(text=self.word.ask(), reward=0.125)
        if len(action.code) > 9:
            raise ValueError("too long")
        right = action.code == self.word.code
        return Shown(text="right" if right else "wrong", reward=float(right), done=True)

    @property
    def state(self):
        return State()


class Tools(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        self.word, self.paid, self.over = Word(), 0.0, False
        server = FastMCP("code word")

        @server.tool()
        def ask() -> str:
            """Show the next letter."""
            self.paid = 0.125
            return self.word.ask()

        @server.tool()
        def answer(code: str) -> str:
            """Answer with the code."""
            self.over, self.paid = True, float(code == self.word.code)
            return "right" if self.paid else "wrong"

        super().__init__(server)

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.word.begin(seed)
        self.over = False
        return Shown(text="Find the code.")

    def _step_impl(self, action, timeout_s=None, **kwargs):
        raise ValueError("only calls of tools")

    def _paid(self, observation):
        observation.reward, observation.done, self.paid = self.paid, self.over, 0.0
        return observation

    def step(self, action, timeout_s=None, **kwargs):
        return self._paid(super().step(action, timeout_s, **kwargs))

    async def step_async(self, action, timeout_s=None, **kwargs):
        return self._paid(await super().step_async(action, timeout_s, **kwargs))

    @property
    def state(self):
        return State()


if __name__ == "__main__":
    port, kind = sys.argv[1:]
    kinds = {"tools": (Tools, CallToolAction, CallToolObservation), "actions": (Actions, Guess, Shown)}
    uvicorn.run(create_app(*kinds[kind], max_concurrent_envs=64), host="127.0.0.1", port=int(port), log_level="warning")
