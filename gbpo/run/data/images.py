"""The images of a data set: the column that the trainer reads, checks of every file, and their places in a prompt."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List, Value

from ..rewards_package import rewards_module
from .episodes import EMPTY_PROMPT

# The columns that TRL reads: one image of each row, or a list of them.
COLUMNS = ("image", "images")


def use_images(dataset: Dataset, column: str, folder: Path, name: str) -> tuple[Dataset, list[str]]:
    """Rename the column with the images to one that TRL reads, and check that every row has images.

    Args:
        dataset: The data set. An image is stored as datasets stores images, as bytes or as the path of a file.
        column: The column with the images. A row holds one image or a list of them.
        folder: Relative paths start here.
        name: Name of the data set, for errors and notes.

    Returns:
        The data set with the column `image` or `images`, and a line if another column had this role.

    Raises:
        ValueError: The column is missing, a row has no image, or a file is no image.
    """
    if column not in dataset.column_names:
        raise ValueError(
            f"image_column={column!r} is not a column of {name!r}, which has {', '.join(dataset.column_names)}. Name "
            "the column with the images, or remove image_column."
        )
    feature = dataset.features[column]
    is_list = isinstance(feature, List)
    leaf = feature.feature if is_list else feature
    if not isinstance(leaf, Image) and leaf not in (Value("string"), Value("large_string"), Value("binary")):
        raise ValueError(
            f"image_column={column!r} of {name!r} holds {_shown(dataset[0][column])}, which is not an image. Name a "
            "column with images, their bytes or the paths of their files, or with lists of these."
        )
    if leaf in (Value("string"), Value("large_string")):
        dataset = _with_whole_paths(dataset, column, folder)
    target = COLUMNS[is_list]
    others = [other for other in COLUMNS if other in dataset.column_names and other != column]
    notes = [f"The column {other!r} of {name!r} is left out, because image_column is {column!r}." for other in others]
    dataset = dataset.remove_columns(others)
    if column != target:
        dataset = dataset.rename_column(column, target)
    if not isinstance(leaf, Image):
        dataset = dataset.cast_column(target, List(Image()) if is_list else Image())
    for row, images in enumerate(_stored(dataset)):
        _check(images, f"Row {row} of {name!r}, image_column={column!r}")
    return dataset, notes


def column_of(dataset: Dataset) -> str | None:
    """The column with the images that TRL reads; None if there is none."""
    return next((column for column in COLUMNS if column in dataset.column_names), None)


def counts(dataset: Dataset) -> list[int]:
    """Number of images of each row."""
    return [len(images) for images in _stored(dataset)]


def decoded(dataset: Dataset) -> list[list[Any]]:
    """The images of each row as Pillow's images."""
    column = column_of(dataset)
    return [images if isinstance(images, list) else [images] for images in dataset[column]]


def pixels(dataset: Dataset) -> list[int]:
    """Number of pixels of the images of each row, before they are resized."""
    return [sum(prod(_opened(image).size) for image in images) for images in _stored(dataset)]


def write_files(dataset: Dataset, folder: Path) -> list[list[str]]:
    """Write the file of each image to a folder, under a hash of its content, and return the names of each row."""
    folder.mkdir(exist_ok=True)
    names: list[list[str]] = []
    for images in _stored(dataset):
        names.append([])
        for image in images:
            content = _content(image)
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.{_opened(image).format.lower()}"
            (folder / name).write_bytes(content)
            names[-1].append(name)
    return names


def prompt_keys(dataset: Dataset) -> list[str]:
    """A text for each row. It is equal for rows with the same prompt, images and, in an environment, seed."""
    seeds = dataset["seed"] if "seed" in dataset.column_names else [None] * len(dataset)
    prompts = (
        json.dumps([prompt, seed] if prompt == EMPTY_PROMPT else [prompt])
        for prompt, seed in zip(dataset["prompt"], seeds, strict=True)
    )
    if column_of(dataset) is None:
        return list(prompts)
    files = ([hashlib.sha256(_content(image)).hexdigest() for image in images] for images in _stored(dataset))
    return [" ".join([prompt, *some]) for prompt, some in zip(prompts, files, strict=True)]


def filled(messages: Sequence[dict[str, Any]], images: Sequence[Any]) -> list[dict[str, Any]]:
    """Messages with images in the places that `read_prompts` has made for them."""
    remaining = iter(images)
    return [
        {
            **message,
            "content": [
                {"type": "image", "image": next(remaining)} if part["type"] == "image" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _with_whole_paths(dataset: Dataset, column: str, folder: Path) -> Dataset:
    """The data set with paths that do not depend on the working directory."""

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(one) for one in value]
        return value and str(folder / Path(value).expanduser())

    return rewards_module("shared.columns").with_column(dataset, column, [whole(value) for value in dataset[column]])


def _stored(dataset: Dataset) -> Iterator[list[dict[str, Any]]]:
    """The images of each row as they are stored: the bytes or the path of each file."""
    stored = dataset.select_columns(column_of(dataset)).with_format("arrow")
    for table in stored.iter(batch_size=64):
        for images in table.column(0).to_pylist():
            yield images if isinstance(images, list) else [] if images is None else [images]


def _check(images: list[dict[str, Any]], place: str) -> None:
    if not images or None in images:
        raise ValueError(
            f"{place}: this row has no image, but TRL 1.16 needs at least one in every row. Remove this row."
        )
    for image in images:
        try:
            _verify(image)
        except Exception as error:  # Pillow raises many types of errors
            unknown = type(error).__name__ == "UnidentifiedImageError"  # whose text is the address of an object
            reason = "no known format of images" if unknown else " ".join(str(error).split())[:200].rstrip(".")
            raise ValueError(
                f"{place}: {_shown(image['bytes'] if image['path'] is None else image['path'])} cannot be read as an "
                f"image, so the run would end at this row: {reason}. Correct or remove this row."
            ) from None


def _verify(image: dict[str, Any]) -> None:
    opened, content = _opened(image), _content(image)
    opened.verify()  # checks the whole file of a PNG, but only the beginning of a JPEG
    if opened.format == "JPEG" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError("the file ends before the image does")


def _opened(image: dict[str, Any]) -> Any:
    """The image with its size, but not yet its pixels."""
    from PIL import Image as Pillow

    return Pillow.open(io.BytesIO(_content(image)))


def _content(image: dict[str, Any]) -> bytes:
    """The bytes of the file of an image."""
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
