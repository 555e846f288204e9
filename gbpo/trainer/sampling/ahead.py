"""`Ahead`: the parts of the trainer that sample generations before they are used."""

from dataclasses import dataclass

from .background import BackgroundSampler
from .curriculum import Curriculum
from .delay_line import DelayLine, PromptOrder
from .seeds import SamplingSeeds


@dataclass(frozen=True)
class Ahead:
    """What `generate_ahead` adds to a trainer.

    Args:
        line: The generations that are sampled and not yet used.
        prompts: The prompts of the generations to come.
        seeds: Gives the random stream of each generation.
        background: Asks a vLLM server while the trainer trains. None: the engine samples in turn with the training.
    """

    line: DelayLine
    prompts: PromptOrder | Curriculum
    seeds: SamplingSeeds
    background: BackgroundSampler | None

    def settle(self) -> bool:
        """Wait until all completions are sampled. Returns whether the server was there all the time."""
        if self.background is None:
            return True
        self.line.settle()
        return not self.background.was_gone()
