"""Write the held-out questions of a comparison into its folder."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, Image, List

from gbpo.run.data import images
from gbpo.run.recipe.arguments import RunArguments
from gbpo.run.rewards_package import rewards_module

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

    Raises:
        ValueError: There are fewer than two.
    """
    count = len(held_out)
    if count < 2:
        raise ValueError(
            f"{count} held-out question(s) cannot be split into validation and test questions. Give more questions, or "
            "a larger --eval_questions."
        )
    for name, rows in ((VALIDATION, range(0, count, 2)), (TEST, range(1, count, 2))):
        held_out.select(rows).to_json(folder / name, force_ascii=False)


def _is_image(feature: object) -> bool:
    return isinstance(feature.feature if isinstance(feature, List) else feature, Image)
