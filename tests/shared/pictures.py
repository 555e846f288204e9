"""A tiny random Qwen2.5-VL, and rows whose numbers and sizes of images differ."""

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from gbpo.run.models.tiny_vision import tiny_processor, tiny_qwen_vl

COLOURS = ("red", "green", "blue", "white")


def save(folder):
    """Save the random model with its processor, and return the folder as text."""
    processor = tiny_processor()
    tiny_qwen_vl(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def picture(number):
    """An image whose size and colour depend on the number: 1, 2, 4 or 6 tokens."""
    width, height = [(28, 28), (56, 28), (56, 56), (84, 56)][number % 4]
    image = Pillow.new("RGB", (width, height), COLOURS[number // 4 % 4])
    image.paste("black", (0, 0, 5 + number % 9, 9))
    return image


def rows(count=4):
    """Prompts of different lengths with 1, 2 or 3 images, in the form in which recipes load them."""
    images = [[picture(3 * row + i) for i in range(1 + row % 3)] for row in range(count)]
    place = {"type": "image", "text": None}
    texts = [{"type": "text", "text": "Which?"[row % 4 :]} for row in range(count)]
    prompts = [
        [{"role": "user", "content": [*[place] * len(some), text]}] for some, text in zip(images, texts, strict=True)
    ]
    part = {"type": Value("string"), "text": Value("string")}
    features = Features({"prompt": List({"role": Value("string"), "content": List(part)}), "images": List(Image())})
    return Dataset.from_dict({"prompt": prompts, "images": images}, features)
