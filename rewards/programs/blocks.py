"""Choose the program of a completion among its fenced code blocks.

Completions may be hostile. All functions take linear time, and no code is parsed outside the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

# A line that opens or closes a block: the indentation with markers of lists, the fence, and the text after the fence.
_FENCE = re.compile(r"^([ \t]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++)*+)(`{3,}+|~{3,}+)([^\n]*+)$", re.MULTILINE)
# The text after a fence whose language is Python: `py`, `Python 3`, `{#id .python startFrom="1"}`.
_PYTHON = re.compile(
    r"(?:\{\s*+(?:#\S++\s++)?)?\.?(?:(?:i?python|py|pypy)(?:-?\d[\d.]*)?(?![\w+#-])|\S++(?<=\.py)(?!\S))",
    re.IGNORECASE,
)
# A tag in the line of a fence: `<answer>` before the first one, `</answer>` or `<|im_end|>` after the last one.
_TAG = re.compile(
    r"^([ \t]*+)(?:<\w++>[ \t]*+(?=`{3}|~{3})|(`{3,}+|~{3,}+)[ \t]*+<[/|][^<>\n]*+>[ \t]*+$)", re.MULTILINE
)
# What is read only if no other fence names Python: words before a fence that does, marks of a quotation, and blocks in
# a block of Markdown.
_WORDS = re.compile(
    r"^(?=[^`\n]*?[A-Za-z])([^`\n]*[^`\s])[ \t]*+(?=```(?:python|py)3?[ \t]*+$)", re.MULTILINE | re.IGNORECASE
)
_MARKDOWN = re.compile(r"^[ \t]*+(?:`{3,}+|~{3,}+)[ \t]*+(?:markdown|md)[ \t]*+$", re.MULTILINE | re.IGNORECASE)
_QUOTE = re.compile(r"^[ \t]*+>[ \t]?", re.MULTILINE)
_PRINTS = re.compile(r"\b(?:print|write|writelines)\s*+\(")
_INDENTATION = re.compile(r"^[ \t]*+(?=[^ \t\n])", re.MULTILINE)  # of a line that is not blank


@dataclass(frozen=True)
class _Block:
    program: str
    is_labelled: bool  # whether the fence names Python; otherwise the fence names no language


def find_program(text: str, functions: Collection[str] = ()) -> str | None:
    """The program of a text: its last closed code block that defines what the tests call.

    Blocks in another language are ignored. If no block defines all functions, the block that defines most of them is
    chosen. Between equal blocks, one whose fence names Python comes before one without a language that prints nothing,
    such as an example of the output.

    Args:
        text: A completion in Markdown.
        functions: The functions and methods that the tests call. Empty for tests of standard output.

    Returns:
        The program, or None if there is no closed block.

    >>> find_program("First:\\n```python\\nx = 1\\n```\\nno:\\n~~~\\nprint(2)\\n~~~\\nIt prints:\\n```\\n2\\n```\\n")
    'print(2)\\n'
    >>> find_program("```py\\ndef f(): return 1\\n```\\nUse it so:\\n```py\\nprint(f())\\n```", ["f"])
    'def f(): return 1\\n'
    """
    patterns = [_definitions(map(re.escape, functions)), _assignments(map(re.escape, functions))]

    def rank(block: _Block) -> tuple[int, int, bool]:
        defined, assigned = (sum(bool(p.search(block.program)) for p in some) for some in patterns)
        return defined, assigned, block.is_labelled or _PRINTS.search(block.program) is not None

    text = _TAG.sub(r"\1\2", text.replace("\r\n", "\n"))
    blocks = list(_blocks(text))
    if not any(block.is_labelled for block in blocks):
        others = list(_blocks(_WORDS.sub(r"\1\n", _MARKDOWN.sub("", _QUOTE.sub("", text)))))
        blocks = others if not blocks or any(block.is_labelled for block in others) else blocks
    return max(reversed(blocks), key=rank).program if blocks else None


def _definitions(names: Iterable[str]) -> list[re.Pattern[str]]:
    starts = r"^[ \t]*+(?:async[ \t]++)?(?:def|class)[ \t]++"
    return [re.compile(rf"{starts}{name}\b", re.MULTILINE) for name in names]


def _assignments(names: Iterable[str]) -> list[re.Pattern[str]]:
    return [re.compile(rf"^[ \t]*+{name}[ \t]*+(?::[^=\n]*+)?=(?!=)", re.MULTILINE) for name in names]


def _blocks(text: str) -> Iterator[_Block]:
    """The closed blocks that are in Python or in no language.

    A fence with a language opens a new block even if the last one is not closed.
    """
    opening = None
    for line in _FENCE.finditer(text):
        indentation, fence, info = line.group(1), line.group(2), line.group(3).strip()
        if fence[0] == "`" and "`" in info:
            continue  # code within a line of text
        if opening is None:
            opening = line
            continue
        if fence[0] != opening.group(2)[0] or len(fence) < len(opening.group(2)):
            continue  # a line of a block with a longer or another fence
        if len(indentation) > len(opening.group(1)):
            continue  # a line of a docstring
        if info:
            opening = line
        elif not indentation.strip():  # an item of a list cannot close a block
            language = opening.group(3).strip()
            if not language or _PYTHON.match(language):
                program = _without_indentation(text[opening.end() + 1 : line.start()], bool(opening.group(1)))
                yield _Block(program, is_labelled=bool(language))
            opening = None


def _without_indentation(program: str, is_indented: bool) -> str:
    """The lines of a block. If its fence is indented, each line loses up to the indentation of the first line."""
    first = _INDENTATION.search(program) if is_indented else None
    if first is None or not first.group():
        return program
    return re.sub(rf"^[ \t]{{1,{len(first.group())}}}", "", program, flags=re.MULTILINE)
