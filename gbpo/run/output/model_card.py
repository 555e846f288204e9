"""The model card of a run: where the model comes from, how it was trained, and what the run measured."""

from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from ..data.loading import is_generated, is_local
from ..models.catalogue import PREFIX, is_folder
from .folder import read_metrics, versions
from .trend import Trend

if TYPE_CHECKING:
    from ..recipe.parsing import Recipe  # which loads TRL

CARD = "README.md"

# metric → its name in the table, and the format of its values
_METRICS = {
    "reward": ("reward in training", ".3f"),
    "eval_reward": ("reward in evaluations", ".3f"),
    "completions/mean_length": ("tokens per completion", ".1f"),
    "entropy": ("entropy (nats per token)", ".3f"),
    "kl": ("KL divergence from the reference model", ".4f"),
}


def model_card(
    recipe: "Recipe", output: Path, *, command: str, prompt: Any, paper: dict[str, str], merged: bool = False
) -> str:
    """The text of the model card.

    The card links to the Hub only what has a Hub id. It names no licence, because a run does not know the licence.

    Args:
        recipe: The recipe of the run.
        output: Output folder of the run, with the metrics so far.
        command: The command that started the run.
        prompt: A prompt in the form of the training prompts, as messages or as text.
        paper: Title, arXiv number (`id`) and BibTeX entry (`citation`) of the algorithm's paper.
        merged: Whether the card is for the merged model and not for the adapter.
    """
    name = recipe.training.hub_model_id or output.resolve().name  # the output folder may be .
    adapter = recipe.model.use_peft and not merged
    parts = [
        f"---\n{_header(recipe, name, adapter=adapter).to_yaml()}\n---",
        f"# {name}",
        f"{_kind(recipe, merged=merged)} {_base(recipe)}. It was trained with reinforcement learning on "
        f"{_data(recipe)}.",
        _usage(recipe, prompt),
        "## Training",
        f"The algorithm is {recipe.run.algorithm.upper()} ([{paper['title']}](https://arxiv.org/abs/{paper['id']})), "
        "run by gbpo on [TRL](https://github.com/huggingface/trl). The command was:",
        f"```sh\n{command}\n```",
        _rewards(recipe),
        _measured(output),
        "## Versions",
        "\n".join(f"- {package} {version}" for package, version in versions().items() if version),
        "## Citation",
        f"```bibtex\n{paper['citation'].strip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(recipe: "Recipe", name: str, *, adapter: bool) -> ModelCardData:
    run, base = recipe.run, _hub_model(recipe)
    return ModelCardData(
        model_name=name,
        base_model=base,
        base_model_relation=base and ("adapter" if adapter else "finetune"),
        datasets=[run.dataset_name] if _on_hub(run.dataset_name) else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text" if run.image_column else "text-generation",
        tags=["generated_from_trainer", "trl", run.algorithm, "reinforcement-learning"],
    )


def _kind(recipe: "Recipe", *, merged: bool) -> str:
    if not recipe.model.use_peft:
        return "This model is a fine-tuned version of"
    return "This model is a LoRA adapter merged into" if merged else "This is a LoRA adapter for"


def _hub_model(recipe: "Recipe") -> str | None:
    """The Hub id of the base model, or None for builtin models and local folders."""
    name = recipe.model.model_name_or_path
    return None if name.startswith(PREFIX) or is_folder(name) else name


def _base(recipe: "Recipe") -> str:
    name = recipe.model.model_name_or_path
    if name.startswith(PREFIX):
        return f"`{name}`, a small model that gbpo builds"
    hub, revision = _hub_model(recipe), recipe.model.model_revision
    if hub is None:
        return f"the local model `{Path(name).name}`"
    link = f"[{hub}](https://huggingface.co/{hub})"
    return link if revision in (None, "main") else f"{link} at revision `{revision}`"


def _on_hub(dataset: str) -> bool:
    return not is_generated(dataset) and not is_local(dataset)


def _data(recipe: "Recipe") -> str:
    run = recipe.run
    if is_generated(run.dataset_name):
        return f"the generated task `{run.dataset_name}`"
    if is_local(run.dataset_name):
        return f"the local data `{Path(run.dataset_name).name}`"
    config = f", configuration `{run.dataset_config}`" if run.dataset_config else ""
    link = f"[{run.dataset_name}](https://huggingface.co/datasets/{run.dataset_name})"
    return f"{link}{config}, split `{run.dataset_train_split}`"


def _usage(recipe: "Recipe", prompt: Any) -> str:
    """A program that asks the model, in the form of the training prompts. Empty for prompts with images."""
    if recipe.run.image_column:
        return ""
    here = "" if recipe.training.hub_model_id else "  # the folder of this card"
    model = recipe.training.hub_model_id or "."
    tokens = recipe.training.max_completion_length
    return f"""\
## Use

```python
from transformers import pipeline

generate = pipeline("text-generation", model="{model}"){here}
prompt = {pformat(prompt, width=100, sort_dicts=False)}
print(generate(prompt, max_new_tokens={tokens}, return_full_text=False)[0]["generated_text"])
```"""


def _rewards(recipe: "Recipe") -> str:
    names = [f"`{name}`" for name in recipe.run.reward_funcs or []]
    return f"Rewards: {', '.join(names)}." if names else ""


def _measured(output: Path) -> str:
    """The steps so far and a table of the metrics. Empty before the first log."""
    rows = read_metrics(output)
    trends = {name: trend for name in _METRICS if (trend := Trend.of(rows, name))}
    if not trends:
        return ""
    lines = [
        f"The run took {rows[-1]['step']} optimiser steps. The table compares the first and the last fifth of the "
        "logs: the mean, and the standard deviation between the logs. The run measured these numbers on its own "
        "prompts, so they are no test of the model.",
        "",
        "| metric | first logs | last logs | logs in each |",
        "|---|---|---|---|",
    ]
    for name, trend in trends.items():
        label, form = _METRICS[name]
        lines.append(f"| {label} | {trend.first.text(form)} | {trend.last.text(form)} | {trend.last.logs} |")
    return "\n".join(lines)
