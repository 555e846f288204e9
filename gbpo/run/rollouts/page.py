"""One HTML file with the completions of a run, which opens offline."""

import math
from pathlib import Path
from typing import Any

from ...shared.pages.render import assets, environment, thinned
from ...shared.write_whole import write_whole
from . import files

TEMPLATES = Path(__file__).parent / "templates"
MAX_COMPLETIONS = 4_000  # a page with more loads slowly
MAX_SHADED = 400_000  # tokens with ratios


def write(run: Path, output: Path, step: int | None, generations: int) -> Path:
    """Write the page.

    Args:
        run: Output folder of the run.
        output: The file to write.
        step: Show only the generations of this optimiser step. None: of the whole run.
        generations: Maximum number of generations, which are evenly spaced over the run.

    Raises:
        ValueError: The run has no completions, or none of this step, or the page cannot be written.
    """
    notes = []
    if step is None:
        found = files.files_of(run)
        records = [files.read(file.path) for file in thinned(found, generations)]
        if len(records) < len(found):
            notes.append(f"{len(records)} of {len(found)} generations are shown, evenly spaced. --max N shows more.")
    else:
        records = files.records_of_step(run, step)
    notes += _shorten(records)
    page = (
        environment(TEMPLATES)
        .get_template("rollouts.html")
        .render(
            run=run.resolve().name,
            notes=notes,
            generations=len(records),
            completions=sum(len(group["completions"]) for record in records for group in record["groups"]),
            steps=[records[0]["steps"][0], records[-1]["steps"][1]],
            data=_finite(records),
            **assets(TEMPLATES / "rollouts.css", TEMPLATES / "rollouts.js"),
        )
    )
    try:
        write_whole(output, page.encode(errors="replace"))
    except OSError as error:
        raise ValueError(f"{str(output)!r} cannot be written ({error.strerror}). Give another --output.") from None
    return output


def _shorten(records: list[dict[str, Any]]) -> list[str]:
    """Keep the page small: leave out groups, and the ratios of some completions. Returns what was left out."""
    notes = []
    total = sum(len(group["completions"]) for record in records for group in record["groups"])
    if total > MAX_COMPLETIONS:
        for record in records:
            share = MAX_COMPLETIONS * len(record["groups"]) // total
            record["groups"] = thinned(record["groups"], max(1, share))
        kept = sum(len(group["completions"]) for record in records for group in record["groups"])
        notes.append(f"{kept:,} of {total:,} completions are shown, in whole groups. --step N shows one generation.")
    shaded, left = 0, 0
    for record in records:
        left += record["without_ratios"]
        for one in (one for group in record["groups"] for one in group["completions"]):
            shaded += len(one.get("ratios", ()))
            if shaded > MAX_SHADED and one.pop("ratios", None):
                left += 1
            if "ratios" not in one:
                del one["ids"]
        used = {token for group in record["groups"] for one in group["completions"] for token in one.get("ids", ())}
        record["vocabulary"] = {token: text for token, text in record["vocabulary"].items() if int(token) in used}
    if left:
        notes.append(f"The tokens of {left:,} completions are not shaded, to keep the file small.")
    return notes


def _finite(value: Any) -> Any:
    """The value with text in place of infinities and NaN, which JSON for browsers does not have."""
    if isinstance(value, dict):
        return {key: _finite(some) for key, some in value.items()}
    if isinstance(value, list):
        return [_finite(some) for some in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
