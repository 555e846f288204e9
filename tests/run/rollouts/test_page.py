"""The page with the completions: its filters, its safety, its size, and its looks in a browser."""

import json

import pytest

from gbpo.run.rollouts import page
from gbpo.run.rollouts.page import write
from gbpo.shared.pages.render import thinned


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The page of the whole run."""
    return write(run, tmp_path_factory.mktemp("page") / "page.html", step=None, generations=20)


def choose(browser, **fields):
    """Set fields of the filter, as a user would."""
    for name, value in fields.items():
        browser.evaluate(
            f"(() => {{ const field = document.getElementById({json.dumps(name)}); field.value = {json.dumps(value)}; "
            "field.dispatchEvent(new Event('input', {bubbles: true})) })()"
        )


def shade(browser, by):
    browser.evaluate(f"document.querySelector('[name=shade][value={by}]').click()")


def count(browser):
    return browser.evaluate("document.getElementById('count').innerText").split(". Each")[0]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_looks(whole, browser, shots, width, scheme):
    browser.open(whole, width=width, scheme=scheme)
    choose(browser, step="5")
    shade(browser, "ratio" if scheme == "dark" else "none")
    browser.screenshot(shots / f"rollouts-{width}-{scheme}.png")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    left, right = browser.evaluate("[...document.querySelectorAll('.pane')].map(pane => pane.offsetTop)")
    assert (left == right) == (width == 1280)  # side by side, or one below the other
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    assert browser.complaints() == []


def test_a_conversation_is_shown_with_its_turns(whole, browser):
    browser.open(whole)
    choose(browser, step="5")
    shown = browser.evaluate("document.querySelector('article').innerText")
    for text in (
        "Step 11–12 · group 1",
        "solution: 5855",
        "system\nUse the calculator.",
        "user\nWhat is 127 × 46 + 13?",
        'I calculate it.\ncalculator({"expression":"127 * 46 + 13"})',
        "tool calculator\n5855",
        "assistant\nThe result is 5855.",
    ):
        assert text in shown


def test_filters(whole, browser):
    browser.open(whole)
    assert count(browser) == "62 completions in 16 groups"  # 5 × 3 groups of 4, and one of 2
    choose(browser, step="1")
    assert count(browser) == "12 completions in 3 groups"
    choose(browser, low="0.5")
    assert count(browser) == "3 completions in 3 groups"
    choose(browser, low="", high="0.5", search="2+1=")
    assert count(browser) == "3 completions in 1 group"
    choose(browser, step="", high="", search="", status=json.dumps(["exact_match/status", "ok"], separators=(",", ":")))
    assert count(browser) == "16 completions in 16 groups"
    choose(browser, search="no such text")
    assert count(browser) == "0 completions in 0 groups"
    assert browser.complaints() == []


def test_two_completions_of_a_group_are_compared(whole, browser):
    browser.open(whole)
    facts = "[...document.querySelector('article').querySelectorAll('.facts')].map(facts => facts.innerText)"

    def numbers():
        return [text.replace("\n", " ").split("completion ")[1].split(" ")[0] for text in browser.evaluate(facts)]

    assert numbers() == ["1", "4"]  # the highest and the lowest reward
    browser.evaluate("document.querySelectorAll('.chips button')[1].click()")
    assert numbers() == ["1", "2"]
    browser.evaluate("document.querySelectorAll('.chips button')[2].click()")
    assert numbers() == ["3", "2"]
    assert "loss not run: no signal, or too old" not in " ".join(browser.evaluate(facts)).replace("\n", " ")
    browser.evaluate("document.querySelectorAll('.chips button')[3].click()")
    assert "loss not run: no signal, or too old" in " ".join(browser.evaluate(facts)).replace("\n", " ")


def test_tokens_are_shaded_by_ratio_and_by_target(whole, browser):
    browser.open(whole)
    choose(browser, step="5")
    tokens = (
        "[...document.querySelector('.pane').querySelectorAll('.token')]"
        ".map(t => [t.textContent, t.className, t.style.getPropertyValue('--w'), t.title])"
    )
    assert browser.evaluate(tokens) == []
    shade(browser, "ratio")
    shown = browser.evaluate(tokens)
    # the ratios are 0.75 + 0.045 n, the bounds 0.8 and 1.2, the target 1.2
    assert shown[0] == ["I", "token under", "100%", "ρ 0.75, ρ − ρ* −0.45, log-prob 0"]
    assert shown[4] == ["<call>", "token under", "35%", "ρ 0.93, ρ − ρ* −0.27, log-prob −0.4"]
    assert shown[7] == ["5855", "token unshaded", "", "not in the loss"]
    assert shown[11][:3] == [" 5855", "token over", "100%"]
    shade(browser, "target")
    shown = browser.evaluate(tokens)
    assert shown[8][:3] == ["The", "token under", "45%"]  # (1.11 - 1.2) / -0.2
    assert shown[11][1] == "token over"  # 1.245 > 1.2
    assert "full colour where the distance" in browser.evaluate("document.getElementById('legend').innerText")


def test_hostile_texts_do_nothing(whole, browser, hostile):
    browser.open(whole)
    for by in ("none", "ratio"):
        choose(browser, step="5")
        shade(browser, by)
        shown = browser.evaluate("document.querySelectorAll('.pane')[1].querySelector('pre').textContent")
        assert shown == hostile
        assert browser.evaluate("window.hacked === undefined && document.images.length === 0")
    assert browser.complaints() == []
    html = whole.read_text()
    assert html.count("<script") == 2 and html.count("</script>") == 2 and "<img" not in html
    assert "default-src 'none'" in html and "http" not in html.split("Content-Security-Policy")[1].split(">", 1)[1]


def test_what_is_left_out_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_COMPLETIONS", 20)
    monkeypatch.setattr(page, "MAX_SHADED", 9)
    html = write(run, tmp_path / "page.html", step=None, generations=3).read_text()
    assert "3 of 6 generations are shown, evenly spaced. --max N shows more." in html
    assert "18 of 26 completions are shown, in whole groups." in html  # 2, 2 and 1 groups
    # 9 tokens are those of 3 completions; of the other 15, 4 were never run
    assert "The tokens of 11 completions are not shaded, to keep the file small." in html


def test_one_step(run, tmp_path):
    html = write(run, tmp_path / "page.html", step=4, generations=20).read_text()
    assert "12 completions of 1 generation, optimiser steps 3 to 4." in html


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [7]), (2, [0, 7]), (3, [0, 3, 7]), (8, list(range(8))), (9, list(range(8)))]
)
def test_evenly_spaced(count, kept):
    assert thinned(range(8), count) == kept
