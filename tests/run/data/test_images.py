"""Images in every spelling become one column that TRL reads, with a place in the prompt."""

import io
import json

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from gbpo.run.data import images
from gbpo.run.data.loading import load
from gbpo.run.data.messages import read_prompts
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.data.shapes import QUESTION, shapes
from gbpo.run.preview.hazards import overlap
from gbpo.run.recipe.arguments import RunArguments

PLACE = {"type": "image", "text": None}


def text(words):
    return {"type": "text", "text": words}


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def png(colour, side=8):
    file = io.BytesIO()
    Pillow.new("RGB", (side, side), colour).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def files(tmp_path):
    """A folder with red.png and green.png."""
    for colour in ("red", "green"):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    return tmp_path


def colours(dataset):
    return [[image.convert("RGB").getpixel((0, 0)) for image in some] for some in images.decoded(dataset)]


RED, GREEN = (255, 0, 0), (0, 128, 0)
SPELLINGS = {
    "paths": (["red.png", "green.png"], None, "image"),
    "lists of paths": ([["red.png"], ["green.png"]], None, "images"),
    "bytes": ([png("red"), png("green")], None, "image"),
    "lists of bytes": ([[png("red")], [png("green")]], None, "images"),
    "images": ([Pillow.new("RGB", (8, 8), c) for c in ("red", "green")], Image(), "image"),
    "lists of images": ([[Pillow.new("RGB", (8, 8), c)] for c in ("red", "green")], List(Image()), "images"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_images(files, spelling):
    values, feature, column = SPELLINGS[spelling]
    features = feature and Features({"picture": feature})
    dataset, notes = images.use_images(Dataset.from_dict({"picture": values}, features), "picture", files, "mine")
    assert dataset.column_names == [column] and notes == []
    assert colours(dataset) == [[RED], [GREEN]]
    assert images.counts(dataset) == [1, 1] and images.pixels(dataset) == [64, 64]


def jpeg():
    file = io.BytesIO()
    Pillow.effect_noise((64, 64), 50).save(file, format="JPEG")
    return file.getvalue()


# name → content of the file, or the path that is written instead, and the reason that the line gives
UNREADABLE = {
    "text": (b"no image", "'.*/it' cannot be read .*: no known format of images. Correct"),
    "half a PNG": (png("red", 64)[:-20], "'.*/it' cannot be read"),
    "half a JPEG": (jpeg()[:-200], "'.*/it' cannot be read .*: the file ends before the image does. Correct"),
    "an empty path": (None, "'' cannot be read"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(files, case):
    content, line = UNREADABLE[case]
    if content is not None:
        (files / "it").write_bytes(content)
    with pytest.raises(ValueError, match=f"Row 1 of 'mine', image_column='picture': {line}"):
        use("it" if content is not None else "", files)


def test_a_whole_jpeg_can_be_read(files):
    (files / "it").write_bytes(jpeg() + b"\n")  # some cameras write more after the end of the image
    assert images.counts(use("it", files)) == [1, 1]


def use(path, folder):
    return images.use_images(Dataset.from_dict({"picture": ["red.png", path]}), "picture", folder, "mine")[0]


def test_paths_start_at_the_folder_of_the_data_file(files, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    rows = [{"prompt": "Which colour?", "file": ["red.png", str(files / "green.png")], "solution": "red"}] * 2
    (files / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunArguments(dataset_name=str(files / "rows.jsonl"), image_column="file")
    dataset, _ = load(run, evaluation=False)
    assert colours(dataset) == [[RED, GREEN]] * 2
    assert dataset["prompt"][0] == user(PLACE, PLACE, text("Which colour?"))


def test_another_column_that_trl_would_read_is_left_out_and_said(files):
    rows = Dataset.from_dict({"image": ["red.png"], "images": [["green.png"]]})
    dataset, notes = images.use_images(rows, "image", files, "mine.jsonl")
    assert colours(dataset) == [[RED]] and dataset.column_names == ["image"]
    assert notes == ["The column 'images' of 'mine.jsonl' is left out, because image_column is 'image'."]


@pytest.mark.parametrize(
    ("prompt", "count", "read"),
    [
        ("Which?", 2, user(PLACE, PLACE, text("Which?"))),
        ("<image>Which?", 1, user(PLACE, text("Which?"))),
        ("Is <image> like <image>?", 2, user(text("Is "), PLACE, text(" like "), PLACE, text("?"))),
        (user(text("Which?"), {"type": "image"}), 1, user(text("Which?"), PLACE)),
        (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}],
            1,
            [{"role": "system", "content": [text("Be brief.")]}, *user(PLACE, text("Which?"))],
        ),
    ],
)
def test_every_image_has_a_place_in_the_prompt(prompt, count, read):
    dataset, notes = read_prompts(Dataset.from_dict({"prompt": [prompt]}), "mine", [count])
    assert (dataset["prompt"][0], notes) == (read, [])


@pytest.mark.parametrize("prompt", ["<image>Which?", user(PLACE, text("Which?"))])
def test_places_that_differ_from_the_images_are_refused(prompt):
    with pytest.raises(ValueError, match=r"Row 0 of 'mine'.*1 place\(s\) for 2 image\(s\).*<image>"):
        read_prompts(Dataset.from_dict({"prompt": [prompt]}), "mine", [2])


def test_the_answer_at_the_end_is_left_out_with_images_too():
    chat = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "red"}]
    dataset, notes = read_prompts(Dataset.from_dict({"prompt": [chat]}), "mine", [1])
    assert dataset["prompt"][0] == user(PLACE, text("Which?")) and "give the answer away" in notes[0]


def test_the_form_of_the_prompt_keeps_the_images(vision_processor):
    form = PromptFormat(system_prompt="Be brief.", prompt_template="Look: {prompt} Answer:")
    (system, message) = form.formatted(user(PLACE, text("Which?")), vision_processor.tokenizer)
    assert system == {"role": "system", "content": [text("Be brief.")]}
    assert message["content"] == [text("Look: "), PLACE, text("Which?"), text(" Answer:")]


def test_the_length_of_a_prompt_counts_the_tokens_of_its_images(vision_processor):
    """28 × 28 pixels give one token, and 84 × 56 give six; each image also has a begin and an end."""
    rows = [Pillow.new("RGB", size) for size in ((28, 28), (84, 56))]
    features = Features({"prompt": Value("string"), "image": Image()})
    dataset = Dataset.from_dict({"prompt": ["Which?"] * 2, "image": rows}, features)
    dataset, _ = read_prompts(dataset, "mine", images.counts(dataset))
    words = len("Which?") + len(["<|user|>", "<|end|>", "<|assistant|>"])
    form = PromptFormat()
    assert form.lengths(dataset, vision_processor) == [words + 2 + 1, words + 2 + 6]
    assert form.longest(dataset, vision_processor) == words + 2 + 6


def test_the_same_question_on_another_image_is_another_problem():
    features = Features({"prompt": Value("string"), "image": Image()})

    def rows(*some):
        return Dataset.from_dict({"prompt": ["Which?"] * len(some), "image": some}, features)

    red, green = (Pillow.new("RGB", (8, 8), colour) for colour in ("red", "green"))
    assert overlap(rows(red), rows(green)) == []
    assert "1 of 2 prompts" in overlap(rows(red), rows(green, red))[0]
    train, held_out = load(
        RunArguments(dataset_name="shapes", dataset_kwargs={"size": 20}, image_column="image"), evaluation=True
    )
    assert len(train) == len(held_out) == 20
    assert not set(images.prompt_keys(train)) & set(images.prompt_keys(held_out))


def test_the_shapes_have_as_many_circles_as_their_solution():
    """A shape is a connected set of pixels. It is a square if it fills its bounding box."""
    dataset = shapes(size=40, seed=3)
    assert set(dataset["prompt"]) == {QUESTION} and set(dataset["solution"]) == {"1", "2", "3", "4", "5"}
    assert any(squares for _, squares in map(count_shapes, dataset["image"]))
    for image, solution in zip(dataset["image"], dataset["solution"], strict=True):
        assert count_shapes(image)[0] == int(solution)
    again = shapes(size=40, seed=3)
    assert [image.tobytes() for image in dataset["image"]] == [image.tobytes() for image in again["image"]]


def count_shapes(image):
    """Number of circles and of squares."""
    left = {
        (x, y) for x in range(image.width) for y in range(image.height) if image.getpixel((x, y)) != (255, 255, 255)
    }
    found = [0, 0]
    while left:
        shape, pending = set(), [left.pop()]
        while pending:
            x, y = pending.pop()
            shape.add((x, y))
            near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & left
            left -= near
            pending += near
        xs, ys = {x for x, _ in shape}, {y for _, y in shape}
        found[len(shape) == len(xs) * len(ys)] += 1
    return found


def test_a_builtin_task_has_two_names():
    for name in ("shapes", "builtin:shapes"):
        dataset, _ = load(RunArguments(dataset_name=name, image_column="image"), evaluation=False)
        assert dataset["prompt"][0] == user(PLACE, text(QUESTION))
