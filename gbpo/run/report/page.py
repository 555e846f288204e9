"""`report.html` of a run: one file that works offline."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...shared.commands import as_typed, short_path
from ...shared.pages.palette import PALETTE
from ...shared.pages.render import CHARTS, assets, environment, thinned
from ...shared.write_whole import write_whole
from ..output.folder import TIME, read_metrics
from ..output.pace import RATE, by_generation, slowest
from ..output.panels import Line, drawings
from ..output.trend import Trend
from .samples import Samples, last_samples
from .story import FINISHED, End, Story, read

TEMPLATES = Path(__file__).parent / "templates"
REPORT = "report.html"
MAX_POINTS = 300  # of a line; more points would not be visible and would enlarge the page


def write(run: Path, ending: End | None = None) -> Path:
    """Write `report.html` to the output folder of a run.

    Args:
        run: Output folder of the run.
        ending: How the run ends now, if this process writes to the folder.

    Returns:
        The path of the page.

    Raises:
        ValueError: The folder is not the output folder of a run, or the page cannot be written.
    """
    story, rows = read(run, ending), read_metrics(run)
    samples = last_samples(run)
    context = {
        "run": run.resolve().name,
        "folder": short_path(run),
        "algorithm": story.starts[-1].config["run"].get("algorithm", ""),
        "story": story,
        "state": _state(run, story, rows),
        "ended_well": story.running or (story.end is not None and story.end.why == FINISHED),
        "numbers": _numbers(rows),
        "settings": _settings(story),
        "commands": _commands(run, story),
        "history": _history(story),
        "machine": _machine(story.starts[-1].config),
        "samples": samples if isinstance(samples, Samples) else None,
        "no_samples": samples if isinstance(samples, str) else "",
        "written": time.strftime(TIME),
        "data": _curves(rows),
        **assets(TEMPLATES / "report.css", CHARTS, TEMPLATES / "report.js"),
    }
    page = environment(TEMPLATES).get_template("report.html").render(context)
    try:
        write_whole(run / REPORT, page.encode(errors="replace"))
    except OSError as error:
        raise ValueError(f"{str(run / REPORT)!r} cannot be written ({error.strerror}). Free some space.") from None
    return run / REPORT


def _state(run: Path, story: Story, rows: list[dict[str, Any]]) -> str:
    """Whether the run goes on, and how it ended."""
    step = rows[-1]["step"] if rows else 0
    total = story.starts[-1].config["training"].get("max_steps") or 0
    of_all = f"step {step} of {total}" if total > 0 else f"step {step}"
    if story.running:
        return f"The run goes on. Its last log is of {of_all}."
    if story.end is None:
        return f"Nothing says how the run ended. Its last log is of {of_all}. It goes on, or its machine stopped."
    if story.end.why == FINISHED:
        return f"The run finished at step {story.end.step}."
    return f"The run ended at step {story.end.step}: {story.end.why}"


def _numbers(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The numbers at the top of the page, by their names."""
    formats = environment(TEMPLATES).filters
    found = {}
    for name, metric in (("reward", "reward"), ("evaluation reward", "eval_reward")):
        if trend := Trend.of(rows, metric):
            found[name] = trend.text(".3f")
    if not rows:
        return found
    found["training time"] = formats["duration"](rows[-1].get("elapsed"))
    generations = list(by_generation(rows))
    total = {
        phase: sum(row.get(phase) or 0.0 for row in generations) for row in generations for phase in row if "/" in phase
    }
    if tokens := max((row.get("num_tokens") or 0.0 for row in rows), default=0.0):
        rates = sorted(row[RATE] for row in generations if RATE in row)
        middle = f", {formats['amount'](rates[len(rates) // 2])} per second (median of the logs)" if rates else ""
        found["tokens"] = f"{formats['amount'](tokens)}{middle}"
    if slow := slowest(total):
        found["slowest phase"] = f"{slow[0]}, {slow[1]:.0%} of the time of all phases"
    if memory := max((row.get("peak_memory_gb") or 0.0 for row in rows), default=0.0):
        found["peak memory"] = f"{memory:.1f} GB"
    return found


def _settings(story: Story) -> list[tuple[str, list[str]]]:
    """The fields that differ from their defaults in any start of the run, with their value in each start."""
    names = {
        (section, name): None
        for start in story.starts
        for section, fields in start.config.get("changed", {}).items()
        for name in fields
    }
    return [(name, [_shown(start.config[section].get(name)) for start in story.starts]) for section, name in names]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _commands(run: Path, story: Story) -> dict[str, str]:
    """What a reader can do next: command by purpose."""
    folder = as_typed([short_path(run)])
    found = {}
    if story.running:
        found["write this page again"] = f"gbpo report {folder}"
    elif story.end and story.end.why == FINISHED:
        found["test the model"] = f"gbpo evaluate {folder}"
    elif story.command:
        where = f"from {story.checkpoint}" if story.checkpoint else "from step 0, because there is no checkpoint"
        found[f"go on {where}, in the folder where the run was started"] = story.command
    if (run / "rollouts").is_dir():
        found["read all completions"] = f"gbpo rollouts {folder}"
    return found


def _history(story: Story) -> list[tuple[str, str, str]]:
    """Time, text and command of each start and each end, in the order of time."""
    found = []
    for start in story.starts:
        text = f"resumed after step {start.step}" if start.step else "started"
        found.append((start.time, text, as_typed(start.config.get("command", []))))
    for end in story.ends:
        found.append((end.time or time.strftime(TIME), f"ended at step {end.step}: {end.why}", ""))
    return sorted(found, key=lambda event: event[0])


def _machine(config: Mapping[str, Any]) -> dict[str, str]:
    """Versions and hardware of the last start, by their names."""
    found = {"gbpo": config.get("gbpo", ""), "git revision": config.get("git_revision") or "not a git checkout"}
    found |= {package: version for package, version in config.get("versions", {}).items() if version}
    hardware = dict(config.get("hardware", {}))
    found |= {
        "processes": str(config["training"].get("world_size", 1)),
        "device": _device(config["training"], hardware),
    }
    if hardware:
        found |= {"processor": f"{hardware['cpu']}, {hardware['cores']} cores", "memory": f"{hardware['memory_gb']} GB"}
    return found


def _device(training: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    gpus = hardware.get("gpus") or []
    return "CPU" if training.get("use_cpu") or not gpus else ", ".join(gpus)


def _curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The panels for the script of the page, with four significant digits."""
    panels = []
    for drawing in drawings(rows):
        lines = [_thin(line) for line in drawing.lines]
        panels.append(
            {"title": drawing.title, "unit": drawing.unit, "stacked": drawing.stacked, "anchor": 0.0, "lines": lines}
        )
    return {"panels": panels, "colours": len(PALETTE)}


def _thin(line: Line) -> dict[str, Any]:
    kept = thinned(range(len(line.steps)), MAX_POINTS)
    return {
        name: [_short(values[n]) for n in kept] if isinstance(values, list) else values
        for name, values in dataclasses.asdict(line).items()
    }


def _short(value: float) -> float:
    return value if isinstance(value, int) or not math.isfinite(value) else float(f"{value:.4g}")
