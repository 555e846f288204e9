"""The processor of a vision-language model: its tokenizer together with its image processor."""

from typing import Any

from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available


def load_processor(model: str, config: Any, **options: Any) -> Any:
    """The processor of a vision-language model, which pads on the left. None if the model reads text only.

    Args:
        model: Folder or Hub id of the model.
        config: Its configuration.
        options: Passed to `from_pretrained`.
    """
    if type(config) not in PROCESSOR_MAPPING:
        return None
    kind = AutoProcessor if is_torchvision_available() else without_videos(PROCESSOR_MAPPING[type(config)])
    processor = kind.from_pretrained(model, padding_side="left", **options)
    return processor if hasattr(processor, "image_processor") else None


def without_videos(kind: Any) -> Any:
    """A class of processors without its part for videos, which transformers loads only if torchvision is installed."""

    class ImageProcessor(kind):
        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **options):
            options.pop("video_processor", None)
            super().__init__(
                image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template, **options
            )

    ImageProcessor.__name__ = kind.__name__  # transformers saves this name with the processor
    return ImageProcessor
