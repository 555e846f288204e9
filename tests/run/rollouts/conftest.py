"""Made-up generations: sums with votes, and conversations with tool calls and hostile texts."""

import pytest

from browser import HOSTILE
from gbpo.run.rollouts import files


def sums(generation, steps, groups=3, size=4):
    """A generation of sums as text, with tokens of one character."""
    made = []
    for group in range(groups):
        completions = []
        for n in range(size):
            text = f"{group}{n}"
            completions.append(
                {
                    "completion": text,
                    "rewards": {"exact_match": float(n == 0), "length": None},
                    "reward": float(n == 0),
                    "advantage": 1.5 if n == 0 else -0.5,
                    "target_ratio": 1.2 if n == 0 else 0.9,
                    "statuses": {"exact_match/status": "ok" if n == 0 else "wrong"},
                    "ids": [ord(character) for character in text] + [1],
                    "sampled_after": steps[0] - 1,
                    "round": 0,
                    "trained": n < 3,
                    "logps": [-0.5, -1.25, -0.01],
                    "ratios": [1.0 + 0.1 * n, 0.85, None],
                }
            )
            if n == 3:
                del completions[n]["logps"], completions[n]["ratios"]
        made.append({"row": {"prompt": f"{group}+1=", "solution": f"{group}0"}, "completions": completions})
    return {
        "generation": generation,
        "steps": list(steps),
        "bounds": [0.8, 1.2],
        "weights": {"exact_match": 1.0, "length": 0.5},
        "drawn_groups": groups,
        "replaced_groups": 0,
        "without_ratios": 0,
        "vocabulary": {str(token): chr(token) if token > 1 else "<|end|>" for token in [1, *range(48, 58)]},
        "groups": made,
    }


def conversation(generation, steps):
    """A generation of one group with two turns, a tool call and its result; the second completion is hostile."""
    record = sums(generation, steps, groups=1, size=2)
    (group,) = record["groups"]
    system = {"role": "system", "content": "Use the calculator. Think before you call it, and give only the result."}
    question = {"role": "user", "content": "What is 127 × 46 + 13?"}
    group["row"] = {"prompt": [system, question], "solution": "5855"}
    good, bad = group["completions"]
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "127 * 46 + 13"}}}
    good["completion"] = [
        {"role": "assistant", "content": "I calculate it.", "tool_calls": [call]},
        {"role": "tool", "name": "calculator", "content": "5855"},
        {"role": "assistant", "content": "The result is 5855."},
    ]
    words = [
        "I",
        " calculate",
        " it",
        ".",
        "<call>",
        "127 * 46 + 13",
        "</call>",
        "5855",
        "The",
        " result",
        " is",
        " 5855",
    ]
    record["vocabulary"] |= {str(1000 + n): word for n, word in enumerate(words)}
    good["ids"] = [1000 + n for n in range(len(words))]
    good["own"] = [int(word != "5855") for word in words]
    good["logps"] = [-0.1 * n for n in range(len(words))]
    good["ratios"] = [None if word == "5855" else 0.75 + 0.045 * n for n, word in enumerate(words)]
    bad["completion"] = [{"role": "assistant", "content": HOSTILE}]
    bad["statuses"] = {"exact_match/status": HOSTILE[:40]}
    bad["ids"], bad["logps"], bad["ratios"] = [1012], [-2.0], [1.3]
    record["vocabulary"]["1012"] = HOSTILE
    return record


@pytest.fixture
def made_up():
    """`made_up(generation, steps)`: a made-up generation."""
    return sums


@pytest.fixture
def hostile():
    """The text of a completion that tries to run scripts in the page."""
    return HOSTILE


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run with six generations of two steps. The last is a conversation."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    for n in range(5):
        files.write(folder, sums(n, (2 * n + 1, 2 * n + 2)))
    files.write(folder, conversation(5, (11, 12)))
    return folder
