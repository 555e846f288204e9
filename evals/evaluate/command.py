"""How good a checkpoint is on held-out questions, by a reward of this project.

    python -m evals.evaluate MODEL [MODEL ...] DATASET --reward math --columns '{"problem": "prompt"}' --samples 16

prints for each model mean@k, unbiased pass@k, majority@k, the greedy score, the mean length, the share that the token
limit cut off, and with `--reference MODEL` the KL divergence to that model. Models are folders, folders of adapters,
Hub ids or builtin models. What was computed before, for the same weights, questions, settings and code, is read from a
cache. With `--harness lighteval` or `lm-eval` the models go to that program instead.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import rewards
from gbpo.run.recipe.arguments import RunArguments, mapping
from rewards.check import check_sample

from ..report.results import Evaluation

if TYPE_CHECKING:  # torch, transformers and datasets wait until the arguments are known to be right
    from datasets import Dataset

    from .generation import Checkpoint

ENGINES = ("auto", "vllm", "transformers")
# --harness → module, and how it is installed
HARNESSES = {
    "lighteval": ("lighteval", "pip install 'lighteval[accelerate]'"),
    "lm-eval": ("lm_eval", "pip install 'lm-eval[hf]'"),
}
# Rewards whose answer is what stands in a box, so that the majority is counted over boxes.
_BOXED = ("boxed", "cosine", "length", "math", "majority_vote")
# Fields of a recipe: what leads to the questions, and what shapes prompts and rewards.
_WHERE = ("dataset_name", "dataset_config", "dataset_train_split", "dataset_columns")
_HOW = ("dataset_kwargs", "system_prompt", "prompt_template", "reward_funcs", "reward_kwargs")
_PACKAGES = ("torch", "transformers", "peft", "vllm", "math-verify", "reasoning-gym")
_WEIGHTS_AND_TOKENIZER = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
_OF_TRAINING = ("training_args.bin", "trainer_state.json")


@dataclass(frozen=True)
class Settings:
    """What is asked, and how answers are drawn.

    Args:
        run: Data set, prompt and reward as in a recipe; one reward.
        samples: Completions of each question, k.
        temperature, top_p: Of the sampled completions; nothing else shapes their distribution.
        max_tokens: Most tokens of a completion.
        seed: The same seed gives the same completions, on one machine and with one `batch_size`.
        batch_size: Completions at a time; vLLM makes its own batches.
        engine: `"vllm"`, `"transformers"`, or `"auto"`, which becomes vLLM where it is installed and there is an
            accelerator, else transformers.

    Raises:
        ValueError: A value without meaning, or an engine that is not installed.
    """

    run: RunArguments
    samples: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 1024
    seed: int = 0
    batch_size: int = 128
    engine: str = "auto"

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves nothing to evaluate. Write 1 or more.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature:g} is no distribution to sample from. Write a positive number; the "
                "greedy score is printed in any case."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p:g} is no share of the probability. Write a value in (0, 1].")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is no seed. Write a value in [0, {2**32 - 1}].")
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} is unknown. Write one of {', '.join(ENGINES)}.")
        if len(self.run.reward_funcs or []) > 1:
            raise ValueError(f"reward_funcs={self.run.reward_funcs}: an evaluation has one score. Write one reward.")
        object.__setattr__(self, "engine", _engine(self.engine))

    def named(self, fields: Sequence[str]) -> dict[str, Any]:
        """The sampling and some fields of the recipe, by name."""
        return {name: getattr(self.run, name) for name in fields} | {name: getattr(self, name) for name in _SAMPLING}


_SAMPLING = tuple(field.name for field in dataclasses.fields(Settings) if field.name != "run")


def evaluate(
    model: str,
    questions: Dataset,
    settings: Settings,
    reference: str | None = None,
    *,
    step: int = 0,
    cache: bool = True,
) -> Evaluation:
    """Evaluate a checkpoint on questions.

    Args:
        model: A folder, a folder of an adapter, a Hub id or a builtin model.
        questions: As `gbpo.run.data.loading.load` gives them: `prompt` and the columns that the reward reads.
        settings: The reward and the sampling.
        reference: A model to measure the KL divergence to; see `evals.evaluate.generation.divergence`.
        step: Optimiser step of the checkpoint, for the result.
        cache: Read the result where it is known. It is written in any case.

    Returns:
        The result. A completion that the reward leaves ungraded counts 0, and their number is printed as a warning.

    Raises:
        ValueError: The model cannot be read, a column is missing, or golds do not grade themselves as right.
    """
    from gbpo.run.models.catalogue import cache_folder
    from gbpo.run.rewards import load_rewards

    from .generation import find

    reward = load_rewards(settings.run, questions)[0]
    policy = find(model, settings.run.chat_template_path)
    start = find(reference) if reference is not None else None
    if start is not None and start.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ValueError(
            f"reference={reference!r} has another vocabulary than {model!r}: there is no divergence between them. Give "
            "the model that it was trained from."
        )
    path = cache_folder() / "evaluations" / f"{_key(policy, start, questions, settings, reward)}.json"
    known = _read(path) if cache else None
    if known is None:
        check_sample(_reward_name(settings.run), reward, questions)
        known = _measure(policy, start, questions, settings, reward)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, known)
    else:
        print(f"evals.evaluate: {model}: cached, {path}", flush=True)
    if known["ungraded"]:
        graded = len(questions) * (settings.samples + 1)
        print(
            f"evals.evaluate: warning: {model}: the reward left {known['ungraded']} of {graded} completions ungraded; "
            "they count 0.",
            file=sys.stderr,
            flush=True,
        )
    return Evaluation(**known["evaluation"] | {"step": step})


def summary(evaluation: Evaluation) -> list[str]:
    """The numbers of an evaluation, a line each."""
    from ..shared.estimates import pass_at_k  # SciPy takes a while

    k = evaluation.samples
    questions = len(evaluation.scores)
    rows = {f"mean@{k}": _mean(evaluation.scores)}
    powers = [2**i for i in range(k.bit_length())]
    rows |= {f"pass@{n}": pass_at_k(k, evaluation.correct, n) for n in powers}
    rows |= {f"majority@{k}": _mean(evaluation.majority), "greedy": _mean(evaluation.greedy)}
    lines = [f"questions     {questions}", *(f"{name:13} {value:.4f}" for name, value in rows.items())]
    lines += [f"mean length   {evaluation.mean_tokens:.1f} tokens", f"truncated     {evaluation.truncated:.1%}"]
    if evaluation.kl_to_start is not None:
        lines.append(f"KL            {evaluation.kl_to_start:.4f} nats per completion")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate the models of the command line; on bad input print one line and exit with status 2."""
    options = _parser().parse_args(argv)
    try:
        if options.harness is not None:
            raise SystemExit(_hand_over(options))
        _evaluate_all(options)
    except (ValueError, ImportError) as error:
        _refuse(error)


def _evaluate_all(options: argparse.Namespace) -> None:
    settings, names = _settings(options), options.names[:-1]
    if options.output is not None and not Path(options.output).absolute().parent.is_dir():
        raise ValueError(f"--output {options.output!r} lies in no folder that is there. Make it, or write another.")
    from gbpo.run.data import loading as data
    from gbpo.run.rewards import load_rewards

    data.quiet()
    questions, others = data.load(settings.run, evaluation=data.is_generated(settings.run.dataset_name))
    questions = others or questions  # of a generated task, what a run with these arguments does not train on
    load_rewards(settings.run, questions)
    from .generation import find

    for name in [*names, *([options.reference] if options.reference is not None else [])]:
        find(name, settings.run.chat_template_path)  # all of them before the first is loaded
    written = []
    for name in names:
        evaluation = evaluate(name, questions, settings, options.reference, cache=not options.no_cache)
        how = f"temperature {settings.temperature:g}, top_p {settings.top_p:g}, {settings.engine}"
        print("\n".join([f"{name} ({settings.run.dataset_name}, {how})", *map("  {}".format, summary(evaluation))]))
        written.append(
            {
                "model": name,
                "settings": settings.named((*_WHERE, *_HOW)) | {"reference": options.reference},
                "evaluation": dataclasses.asdict(evaluation),
            }
        )
    if options.output is not None:
        _write(Path(options.output), written)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m evals.evaluate",
        usage="%(prog)s MODEL [MODEL ...] DATASET --reward NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, defaults = parser.add_argument, {field.name: field.default for field in dataclasses.fields(Settings)}
    add("names", nargs="+", metavar="MODEL", help="the models, then the data set: a file, Hub id or generated task")
    add("--reward", help="name or dotted path of the reward; a reasoning_gym task brings its own")
    add("--reward_kwargs", default="{}", help="its options, as '{\"workers\": 4}'")
    add("--columns", "--dataset_columns", default="{}", help='to rename, as \'{"answer": "solution"}\'')
    add("--dataset_config", help="configuration of a Hub data set")
    add("--dataset_kwargs", default="{}", help="arguments of a generated task, as in training")
    add("--split", default="test", help="of a Hub data set")
    add("--samples", type=int, default=defaults["samples"], help="completions of each question")
    add("--temperature", type=float, default=defaults["temperature"])
    add("--top_p", type=float, default=defaults["top_p"])
    add("--max_tokens", type=int, default=defaults["max_tokens"], help="most tokens of a completion")
    add("--seed", type=int, default=defaults["seed"])
    add("--batch_size", type=int, default=defaults["batch_size"], help="completions at a time")
    add("--system_prompt", help="system message put before every prompt")
    add("--prompt_template", help="text around the prompt, which stands in it as {prompt}")
    add("--chat_template_path", help="file with a Jinja chat template to use in place of the tokenizer's")
    add("--reference", metavar="MODEL", help="measure the KL divergence to this model")
    add("--engine", choices=ENGINES, default=defaults["engine"])
    add("--output", metavar="FILE.json", help="write the results there; with --harness, what that program takes")
    add("--no_cache", action="store_true", help="compute even what is known")
    add("--harness", choices=HARNESSES, help="hand the models to this program; no data set is given then")
    add("--tasks", help="of the harness, as it names them")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _refuse(message)


def _refuse(error: object) -> NoReturn:
    print(f"evals.evaluate: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _settings(options: argparse.Namespace) -> Settings:
    if len(options.names) < 2:
        raise ValueError(f"Only {options.names[0]!r} is given. Write at least one model, and the data set last.")
    if options.tasks is not None:
        raise ValueError(f"--tasks {options.tasks} changes nothing without --harness. Remove it, or write --harness.")
    reward_kwargs = mapping("reward_kwargs", options.reward_kwargs)
    if reward_kwargs and options.reward is None:
        raise ValueError(f"reward_kwargs={reward_kwargs} belong to no reward. Write --reward.")
    run = RunArguments(
        dataset_name=options.names[-1],
        dataset_config=options.dataset_config,
        dataset_train_split=options.split,
        dataset_kwargs=options.dataset_kwargs,
        dataset_columns=options.columns,
        system_prompt=options.system_prompt,
        prompt_template=options.prompt_template,
        chat_template_path=options.chat_template_path,
        reward_funcs=[options.reward] if options.reward is not None else None,
        reward_kwargs={options.reward: reward_kwargs} if options.reward is not None else {},
    )
    return Settings(run, **{name: getattr(options, name) for name in _SAMPLING})


def _engine(asked: str) -> str:
    installed = find_spec("vllm") is not None
    if asked == "vllm" and not installed:
        raise ValueError("engine='vllm' is not installed: pip install 'gbpo[vllm]', or write engine='transformers'.")
    if asked != "auto":
        return asked
    if not installed:
        return "transformers"
    import torch

    return "vllm" if torch.accelerator.is_available() else "transformers"


def _measure(
    policy: Checkpoint,
    reference: Checkpoint | None,
    questions: Dataset,
    settings: Settings,
    reward: Callable[..., Any],
) -> dict[str, Any]:
    """The evaluation as a mapping, and how many completions were left ungraded."""
    from gbpo.run.data import loading as data
    from rewards.answers.majority_vote import MajorityVote

    from .generation import complete, divergence

    k, count = settings.samples, len(questions)
    formatted = data.format_prompts(questions, settings.run, policy.tokenizer)
    prompts = data.prompt_ids(formatted["prompt"], policy.tokenizer)
    sampled, greedy = complete(policy, prompts, settings)
    texts = policy.tokenizer.batch_decode(sampled, skip_special_tokens=True)
    columns = formatted.to_dict()
    repeated = {name: [value for value in values for _ in range(k)] for name, values in columns.items()}
    earned, ungraded = _grade(reward, repeated, texts, sampled)
    greedy_texts = policy.tokenizer.batch_decode(greedy, skip_special_tokens=True)
    greedy_earned, greedy_ungraded = _grade(reward, columns, greedy_texts, greedy)

    # by question, not by prompt: a question asked twice is voted on twice
    ballots = [f"question {i}" for i in range(count) for _ in range(k)]
    votes = MajorityVote(boxed=_reward_name(settings.run) in _BOXED)(texts, prompts=ballots)
    groups = [slice(i * k, (i + 1) * k) for i in range(count)]
    elected = [next((i for i in range(*group.indices(len(votes))) if votes[i] == 1.0), None) for group in groups]
    kl = None
    if reference is not None:
        repeated_prompts = [ids for ids in prompts for _ in range(k)]
        kl = divergence(policy, reference, repeated_prompts, sampled, settings.batch_size)
    evaluation = Evaluation(
        step=0,
        samples=k,
        scores=[_mean(earned[group]) for group in groups],
        correct=[earned[group].count(1.0) for group in groups],
        majority=[0.0 if i is None else earned[i] for i in elected],
        greedy=greedy_earned,
        completions=texts[::k],
        mean_tokens=_mean(map(len, sampled)),
        truncated=_mean(not ids or ids[-1] not in policy.stops for ids in sampled),
        kl_to_start=kl,
    )
    return {"evaluation": dataclasses.asdict(evaluation), "ungraded": ungraded + greedy_ungraded}


def _grade(
    reward: Callable[..., Any], columns: dict[str, list[Any]], texts: list[str], ids: list[list[int]]
) -> tuple[list[float], int]:
    """What each completion earns, 0 where the reward does not say, and how many these are; called as TRL calls it."""
    given = {name: values for name, values in columns.items() if name not in ("prompt", "completion", "completion_ids")}
    prompts = columns["prompt"]
    chat = not isinstance(prompts[0], str)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    earned = reward(
        prompts=prompts,
        completions=completions,
        completion_ids=ids,
        trainer_state=None,
        log_extra=lambda *args: None,
        log_metric=lambda *args: None,
        **given,
    )
    if inspect.isawaitable(earned):
        earned = asyncio.run(_awaited(earned))
    if len(earned) != len(texts):
        raise ValueError(f"The reward gave {len(earned)} scores for {len(texts)} completions. Let it give one each.")
    graded = [0.0 if value is None or math.isnan(value) else float(value) for value in earned]
    return graded, sum(value is None or math.isnan(value) for value in earned)


async def _awaited(result: Any) -> Any:
    return await result


def _reward_name(run: RunArguments) -> str:
    return run.reward_funcs[0] if run.reward_funcs else "reasoning_gym"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


# The cache.


def _key(
    policy: Checkpoint,
    reference: Checkpoint | None,
    questions: Dataset,
    settings: Settings,
    reward: Callable[..., Any],
) -> str:
    """A hash of all that the result follows from: weights, questions, settings, code, packages and device."""
    import torch

    parts = {
        "models": [checkpoint and _fingerprint(checkpoint) for checkpoint in (policy, reference)],
        "questions": questions.to_list(),
        "settings": settings.named(_HOW),
        "chat_template": policy.tokenizer.chat_template,
        "code": [_file_hash(path) for path in _code(reward)],
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(torch.accelerator.current_accelerator()),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _fingerprint(checkpoint: Checkpoint) -> list[Any]:
    """Hashes of the files of weights and tokenizer; of what lies on the Hub, its commit."""
    found: list[Any] = []
    for source in (checkpoint.base, checkpoint.adapter):
        if source is None:
            continue
        folder = Path(source)
        if not folder.is_dir():
            found.append([source, checkpoint.description.config._commit_hash])
            continue
        files = sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS_AND_TOKENIZER)
        found.append([[path.name, _file_hash(path)] for path in files if path.name not in _OF_TRAINING])
    return found


def _code(reward: Callable[..., Any]) -> list[Path]:
    """The files that the numbers come from."""
    from gbpo.run.data import loading as data

    own = [Path(__file__), Path(__file__).with_name("generation.py"), Path(data.__file__)]
    kind = reward if inspect.isroutine(reward) else getattr(reward, "func", type(reward))
    return [*own, *sorted(Path(rewards.__file__).parent.rglob("*.py")), Path(inspect.getfile(kind))]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> Any:
    """What the file holds; None where there is none, or it is no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def _write(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all, whoever else writes it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(content, default=str) + "\n")
    temporary.replace(path)


# Other programs.


def harness_command(harness: str, model: str, tasks: str, output: str | None) -> list[str]:
    """The command line by which a harness evaluates a model.

    Raises:
        ValueError: The model cannot be read, or lighteval is given an adapter.
    """
    from .generation import find

    checkpoint = find(model)
    module, _ = HARNESSES[harness]
    command = [sys.executable, "-m", module]
    if harness == "lighteval":
        if checkpoint.adapter is not None:
            raise ValueError(
                f"{model!r} is an adapter, which lighteval 0.13 does not load. Give it the merged model, which "
                "merge_adapter: true writes beside the adapter, or write --harness lm-eval."
            )
        command += ["accelerate", f"model_name={checkpoint.base}", tasks]
        return command + (["--output-dir", output] if output is not None else [])
    arguments = f"pretrained={checkpoint.base}"
    if checkpoint.adapter is not None:
        arguments += f",peft={checkpoint.adapter},tokenizer={checkpoint.tokenizer_folder}"
    command += ["run", "--model", "hf", "--model_args", arguments, "--tasks", tasks]
    if checkpoint.tokenizer.chat_template is not None:
        command.append("--apply_chat_template")
    return command + (["--output_path", output] if output is not None else [])


def _hand_over(options: argparse.Namespace) -> int:
    """Run the harness on each model; the first exit status that is not 0."""
    module, installation = HARNESSES[options.harness]
    if options.tasks is None:
        raise ValueError(f"--harness {options.harness} needs its tasks. Write --tasks, as that program names them.")
    if find_spec(module) is None:
        raise ValueError(f"--harness {options.harness} is not installed here: {installation}")
    commands = [harness_command(options.harness, name, options.tasks, options.output) for name in options.names]
    for command in commands:
        print(shlex.join(command), flush=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0
