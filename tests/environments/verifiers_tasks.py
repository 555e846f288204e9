"""Tasksets for the package verifiers: some that gbpo can run, and some that it refuses."""

import asyncio
import random

import verifiers.v1 as vf


class Data(vf.TaskData):
    answer: str = "a"


class Seen(vf.State):
    shown: int = 0
    said: str = ""


class WordTools(vf.Toolset[vf.ToolsetConfig, Seen]):
    TOOL_PREFIX = None

    async def setup_task(self, task):
        self.word = task.answer

    @vf.tool
    async def ask(self) -> str:
        """Show the next letter."""
        self.state.shown += 1
        return (self.word + "-")[min(self.state.shown, 3) - 1]

    @vf.tool
    def answer(self, code: str) -> bool:
        """Answer with the code."""
        self.state.said = code
        return code == self.word


class WordConfig(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class Word(vf.Task[Data, Seen, WordConfig]):
    @vf.reward(weight=2.0)
    async def right(self, trace) -> float:
        return float(trace.state.said == self.data.answer)

    @vf.reward(weight=0.125)
    async def asked(self, trace, task) -> float:
        return float(trace.state.shown)

    @classmethod
    def toolsets(cls, config):
        return [WordTools(config.tools)]


class WordTasks(vf.Taskset[Word, vf.TasksetConfig]):
    def load(self):
        rng = random.Random(0)
        for _ in range(16):
            yield Word(Data(prompt="Find the code.", answer=rng.choice("abcd") + rng.choice("abcd")), WordConfig())


class PlainConfig(vf.TasksetConfig):
    first: int = 0


class Plain(vf.Task[Data]):
    """The scoring of task 2 hangs, and that of task 3 fails."""

    @vf.reward(weight=0.5)
    async def same(self, trace) -> float:
        if self.data.answer == "2":
            await asyncio.sleep(60)
        if self.data.answer == "3":
            raise OSError("no grader")
        return float(trace.last_reply == self.data.answer)

    @vf.reward
    async def seen(self, trace):
        return {"turns": trace.num_turns, "system": 10 * (trace.messages[0].content == "Be brief.")}


class PlainTasks(vf.Taskset[Plain, PlainConfig]):
    INFINITE = True

    def load(self):
        number = self.config.first
        while True:
            yield Plain(Data(prompt=f"Say {number}.", system_prompt="Be brief.", answer=str(number)))
            number += 1


class Letters(vf.Task[Data]):
    @vf.reward
    async def letters(self, trace) -> float:
        return trace.last_reply.count(self.data.answer)


class LetterTasks(vf.Taskset[Letters, vf.TasksetConfig]):
    def load(self):
        return [Letters(Data(name=str(row), prompt="Find the code.", answer="abcdefgh"[row])) for row in range(8)]


class Loop(vf.Env[vf.SingleAgentEnvConfig]):
    async def run(self, task, agents):
        await agents.agent.run(task)


class Program(vf.Harness[vf.HarnessConfig]):
    async def launch(self, *args, **kwargs):
        raise NotImplementedError


class Prepared(Letters):
    async def setup(self, trace, runtime):
        await runtime.write("file", b"")


class PreparedTasks(vf.Taskset[Prepared, vf.TasksetConfig]):
    def load(self):
        return [Prepared(Data(prompt="Find the code."))]


class Executed(vf.Task[Data]):
    @vf.reward
    async def passed(self, trace, runtime) -> float:
        return 1.0


class ExecutedTasks(vf.Taskset[Executed, vf.TasksetConfig]):
    def load(self):
        return [Executed(Data(prompt="Find the code."))]


class Stopped(Letters):
    @vf.stop
    async def enough(self, trace: vf.Trace) -> bool:
        return True


class StoppedTasks(vf.Taskset[Stopped, vf.TasksetConfig]):
    def load(self):
        return [Stopped(Data(prompt="Find the code."))]


class OpenTasks(vf.Taskset[Letters, vf.TasksetConfig]):
    def load(self):
        return [Letters(Data())]


class ImageTasks(vf.Taskset[Letters, vf.TasksetConfig]):
    def load(self):
        return [Letters(Data(prompt="Find the code.", image="ubuntu"))]


class Unscored(vf.Task[Data]):
    pass


class UnscoredTasks(vf.Taskset[Unscored, vf.TasksetConfig]):
    def load(self):
        return [Unscored(Data(prompt="Find the code."))]


class BrokenTasks(vf.Taskset[Letters, vf.TasksetConfig]):
    def load(self):
        yield Letters(Data(prompt="Find the code."))
        raise OSError("no disk")


class SharedTasks(WordTasks):
    @classmethod
    def toolsets(cls, config):
        return [WordTools(vf.ToolsetConfig())]
