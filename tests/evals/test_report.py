"""The report of a comparison: what it says, what it must not do, and how it looks in a browser."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import time
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals import report
from evals.analysis import Analysis, Comparison, Row
from evals.charts import curve, heat_maps, label
from evals.results import Cell, Evaluation, Results
from evals.stability import Sign
from evals.statistics import Interval

LONG = "gbpo:target_baseline=exact,overshoot_slope=0.2"
ALGORITHMS = ["grpo", "gbpo", LONG]
GRID = {"epsilon": [0.2, 0.5], "num_iterations": [1, 4, 16]}
HOSTILE = [
    "<script>document.title = 'owned'</script><img src=http://127.0.0.1:9/x.png onerror=alert(1)>",
    '</textarea></pre></script><!-- "\'><svg onload=alert(2)>',
    "\x1b[31mred\x1b[0m \x00 \u202egnp.exe\u202c \ud800 \u0627\u0644\u062c\u0648\u0627\u0628 {{ 7 * 7 }} {% raw %}",
    "x" * 100_000,
    "",
]


def interval(centre, half, n):
    return Interval(centre, centre - half, centre + half, n) if n > 1 else Interval(centre, None, None, n)


def evaluation(rng, level, questions=20):
    scores = [round(min(1.0, max(0.0, rng.gauss(level, 0.25))) * 8) / 8 for _ in range(questions)]
    texts = [f"Adding the tens and the ones gives {q + rng.randint(0, 2)}." for q in range(questions)]
    return Evaluation(200, 8, scores, [round(8 * s) for s in scores], scores, scores, texts, 12.0, 0.0, 3.2)


def made_up(algorithms=ALGORITHMS, grid=GRID, seeds=5, steps=60, failed=(), missing=()):
    """A comparison with numbers out of thin air, and its analysis: cells by their place in `failed` are failed."""
    rng = random.Random(0)
    settings = [{}]
    for field, values in grid.items():
        settings = [setting | {field: value} for setting in settings for value in values]
    cells, rows, comparisons, signs = [], [], [], {}
    for setting in settings:
        hard = setting.get("epsilon", 0.2) * math.log2(1 + setting.get("num_iterations", 1))
        for place, algorithm in enumerate(algorithms):
            top = 0.55 - 0.02 * place - (0.25 if place == 0 else 0.02) * hard
            done = 0
            for seed in range(seeds):
                folder = f"cells/{algorithm}/{label(setting)}/seed-{seed}"
                command = f"python launch/gbpo.py recipes/tiny_math.yaml --algorithm {algorithm} --seed {seed}"
                cell = Cell(algorithm, setting, seed, "done", folder, command)
                if len(cells) in failed:
                    cell.status, cell.reason = "failed", "exit status 1: the reward <failed> on all completions"
                    cell.tail = ["Traceback (most recent call last):", "\x1b[31mValueError\x1b[0m: <b>no</b> completion"]
                elif len(cells) in missing:
                    cell.status = "missing"
                else:
                    done += 1
                    log = [10 * (n + 1) for n in range(steps)]
                    rise = [top * (1 - math.exp(-n / steps * 6)) + 0.2 * math.exp(-n / steps * 6) for n in range(steps)]
                    noise = lambda size: [rng.gauss(0, size) for _ in range(steps)]  # noqa: E731
                    cell.series = {
                        "step": log,
                        "reward": [r + e for r, e in zip(rise, noise(0.02), strict=True)],
                        "eval_reward": [r + e if n % 5 == 4 else None for n, (r, e) in enumerate(zip(rise, noise(0.015)))],
                        "entropy": [1.2 * math.exp(-n / steps * (1 + hard)) + abs(e) for n, e in enumerate(noise(0.02))],
                        "grad_norm": [abs(1 + e) * (400 if rng.random() < 0.02 else 1) for e in noise(0.2)],
                        "gbpo/outside_bounds": [abs(0.05 * hard + e) for e in noise(0.01)],
                        "gbpo/ratio_p01": [0.8 - 0.1 * hard + e for e in noise(0.02)],
                        "gbpo/ratio_p99": [1.3 + 0.3 * hard + e for e in noise(0.04)],
                        "completions/mean_length": [12 + e for e in noise(0.5)],
                    }
                    cell.seconds, cell.train_seconds, cell.tokens, cell.peak_memory_gb = 61.0, 54.0, 1.2e6, 0.61
                    cell.last = cell.best = evaluation(rng, top)
                cells.append(cell)
            collapsed = min(done, round(done * (hard > 0.9) * (0.8 if place == 0 else 0.2)))
            for cell in [c for c in cells[-seeds:] if c.status == "done"][:collapsed]:
                signs[cell.folder] = [
                    Sign(180, "entropy", "0.05 nats per token, below 5 % of 1.20"),
                    Sign(220, "reward", "0.21, half of its rise to 0.43 is lost"),
                ]
            last = interval(top + 0.0123, 0.04, done) if done else None
            rows.append(
                Row(
                    setting, algorithm, done, seeds - done, last, last, last,
                    {4: min(1, top + 0.2), 8: min(1, top + 0.3)} if done else {}, last, last, last,
                    done // 2, *((120.0, 812_345.0, 31.0) if done else (None, None, None)), 54.0, 0.61,
                    collapsed, {"entropy": collapsed} if collapsed else {}, 0.08, (1.21, 0.34), 1.2, (0.71, 1.46), 0.083, 3.2,
                )
            )  # fmt: skip
            if place and done and rows[-1 - place].seeds:
                gap = interval(top - rows[-1 - place].last.estimate, 0.03 + 0.02 * place, done)
                verdict = f"{algorithm} is better than {algorithms[0]} by {gap.estimate:.3f} on {done} seeds."
                comparisons.append(Comparison(setting, algorithm, gap, gap, gap, gap, interval(0.84, 0.1, done), verdict))
    questions = [{"prompt": f"What is {q} + 1?", "gold": str(q + 1)} for q in range(20)]
    results = Results(
        command="python -m evals.compare recipes/tiny_math.yaml --algorithms " + " ".join(algorithms),
        created="2026-01-02T03:04:05+00:00",
        git_revision="0123456789abcdef0123456789abcdef01234567-dirty",
        versions={"torch": "2.9.0", "trl": "1.16.0", "vllm": None},
        hardware={"cpu": "two cores of something", "cores": 2, "memory_gb": 8.0, "gpus": []},
        recipe="recipes/tiny_math.yaml",
        recipe_text="model_name_or_path: builtin:tiny_math\nepsilon: 0.2\n",
        overrides=["--max_steps", "600"],
        algorithms=algorithms,
        grid=grid,
        seeds=list(range(seeds)),
        evaluation={"samples": 8, "temperature": 0.6, "top_p": 0.95, "test questions": 20},
        questions=questions,
        start=evaluation(rng, 0.2),
        notes=["At num_iterations=1 and with the exact target, gbpo takes the very steps of grpo."],
        cells=cells,
    )
    thresholds = [f"{label(s) or 'Threshold'}: 0.412, the final validation reward of {algorithms[0]}." for s in settings]
    return results, Analysis(algorithms[0], thresholds, rows, comparisons, signs)


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._in = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag

    def handle_data(self, data):
        if self._in not in ("script", "style") and data.strip():
            self.texts.append(data.strip())

    def handle_endtag(self, tag):
        self._in = None


def written(folder, results, analysis):
    report.write(results, analysis, folder)
    return (folder / "report.html").read_text(), (folder / "summary.md").read_text()


class Browser:
    """Chromium without a window, spoken to over two pipes in its own protocol."""

    def __init__(self, executable, profile):
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-pipe", "--disable-background-networking", f"--user-data-dir={profile}"]
        # the protocol wants the descriptors 3 and 4
        command = ["sh", "-c", f'exec "$@" 3<&{read} 4>&{write}', "sh", executable, *options, "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=(read, write), **quiet)
        os.close(read)
        os.close(write)
        self._rest, self._number, self._session, self.events = b"", 0, None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 16)
            assert piece, "Chromium ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page, width=1280, height=900, scheme="light"):
        """Load a page and wait until it is drawn; `events` are then those of this page."""
        self.events = []
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def evaluate(self, expression):
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression):
        end = time.monotonic() + 20
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def hover(self, selector):
        """Move the mouse to the middle of an element."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center', "
            "behavior: 'instant'}); const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, name):
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screenshot(self, path, whole=True):
        if whole:
            self("Emulation.setDefaultBackgroundColorOverride")
        path.write_bytes(b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def complaints(self):
        """Console messages, exceptions and requests for anything but the page itself and data."""
        found = [event for event in self.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        found += [event for event in self.events if event["method"] == "Runtime.consoleAPICalled"]
        requests = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return found + [url for url in requests if not url.startswith(("file:", "data:"))]

    def close(self):
        self._process.terminate()
        self._process.wait(10)
        os.close(self._out)
        os.close(self._in)
