"""The generated task with images: how many circles are among circles and squares."""

import random
from typing import Any

from datasets import Dataset, Features, Image, Value

QUESTION = "How many circles?"
SIZE = 56  # pixels of each side
MOST_CIRCLES = 5
_MOST_SQUARES = 3
_CELL = 14  # each shape has a cell of its own, so that no two overlap
_COLOURS = ("red", "blue", "black", "purple")


def shapes(size: int = 1024, seed: int = 0) -> Dataset:
    """Generate the data set, with the columns `prompt`, `image` and `solution`.

    An image has 1 to 5 circles and up to 3 squares of random places, sizes and colours.

    Args:
        size: Number of images.
        seed: Seed of the random images.
    """
    rng = random.Random(seed)
    solutions = [rng.randint(1, MOST_CIRCLES) for _ in range(size)]
    columns = {
        "prompt": [QUESTION] * size,
        "image": [picture(circles, rng) for circles in solutions],
        "solution": list(map(str, solutions)),
    }
    return Dataset.from_dict(
        columns, Features({"prompt": Value("string"), "image": Image(), "solution": Value("string")})
    )


def picture(circles: int, rng: random.Random) -> Any:
    """An image with this many circles."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    image = Pillow.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    per_side = SIZE // _CELL
    cells = rng.sample(range(per_side**2), circles + rng.randint(0, _MOST_SQUARES))
    for number, cell in enumerate(cells):
        side = rng.randint(9, 11)
        left, top = (_CELL * place + rng.randint(1, _CELL - 1 - side) for place in divmod(cell, per_side))
        box = (left, top, left + side, top + side)
        shape = draw.ellipse if number < circles else draw.rectangle
        shape(box, fill=rng.choice(_COLOURS))
    return image
