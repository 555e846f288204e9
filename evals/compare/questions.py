"""Write the held-out questions of a comparison into its folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List

from gbpo.run.data import images
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.rewards_package import rewards_module
from gbpo.shared.write_whole import write_whole

from .plan import TEST, VALIDATION

_IMAGES = "images"  # the folder of the images, beside the questions


def with_image_files(questions: Dataset, loaded: Dataset, run: RunArguments, folder: Path) -> Dataset:
    """The questions with paths instead of images. The images are written into the folder.

    Args:
        questions: The questions as they lie.
        loaded: The same rows as the runs read them.
        run: The recipe's names of the columns.
        folder: Folder of the comparison. The paths start there.
    """
    names = images.write_files(loaded, folder / _IMAGES)
    paths = [[f"{_IMAGES}/{name}" for name in row] for row in names]
    one_each = isinstance(loaded.features[images.column_of(loaded)], Image)
    old_name = {new: old for old, new in run.dataset_columns.items()}.get(run.image_column, run.image_column)
    others = [name for name, feature in questions.features.items() if _is_image(feature) and name != old_name]
    column = [row[0] for row in paths] if one_each else paths
    return rewards_module("shared.columns").with_column(questions.remove_columns(others), old_name, column)


def write_questions(folder: Path, held_out: Dataset) -> None:
    """Write the held-out questions, alternately to the validation and the test file.

    Args:
        folder: Folder of the comparison.
        held_out: The questions, at least two.

    Raises:
        ValueError: The folder has other questions, with which its runs were validated and tested.
    """
    for name, first in ((VALIDATION, 0), (TEST, 1)):
        path, written = folder / name, io.BytesIO()
        held_out.select(range(first, len(held_out), 2)).to_json(written, force_ascii=False)
        if path.is_file() and _rows(path.read_bytes()) != _rows(written.getvalue()):
            raise ValueError(
                f"{str(path)!r} has other questions than the data set has now, so earlier runs and new ones would not "
                "be comparable. Restore the earlier data set, or give another --output."
            )
        write_whole(path, written.getvalue())


def _rows(lines: bytes) -> list[Any]:
    return [*map(json.loads, lines.splitlines())]


def _is_image(feature: object) -> bool:
    return isinstance(feature.feature if isinstance(feature, List) else feature, Image)
