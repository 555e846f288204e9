"""A tiny vision-language model with random weights: generation, loss, gradient and the weight check see its images."""

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from gbpo.run.models.tiny import character_tokenizer, tiny_decoder
from rollouts import count_digits

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SIZE, PATCH = 28, 14


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory):
    """Folder of a LLaVA with 0.1 M parameters, and its processor, which needs Pillow but not torchvision."""
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=PATCH,
            projection_dim=32,
        ),
        text_config=tiny_decoder(tokenizer).config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    folder = tmp_path_factory.mktemp("vision_model")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return str(folder), processor


@pytest.fixture
def with_images(make_trainer, vision_model):
    """A trainer on two prompts with equal text and different images."""
    model, processor = vision_model
    dataset = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": "Which colour?"}]] * 2,
            "image": [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "green")],
        }
    )
    return make_trainer(
        model=model,
        reward_funcs=count_digits,
        dataset=dataset,
        loss_type="bnpo",
        max_steps=1,
        exact_speedups=["none"],  # the tests read the old log-probs before the first pass
        trainer={"processing_class": processor},
    )


def test_a_step_trains_the_vision_tower_too(with_images):
    before = {name: p.detach().clone() for name, p in with_images.model.named_parameters()}
    with_images.train()
    moved = {name for name, p in with_images.model.named_parameters() if (p != before[name]).any()}
    for part in ("vision_tower.embeddings", "vision_tower.encoder", "multi_modal_projector", "language_model"):
        assert any(part in name for name in moved), part


def test_the_loss_of_a_row_is_computed_with_its_image(with_images, gradient, distance):
    """The loss equals that of plain logits with each row's image, and differs from that with the other image."""
    trainer = with_images
    trainer.model.train()
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(4)])
    assert batch["pixel_values"].shape == (8, 3, SIZE, SIZE)
    noise = torch.randn(batch["completion_ids"].shape, generator=torch.Generator().manual_seed(0))
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + 0.2 * noise

    def reference(pixel_values):
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        width = batch["completion_ids"].size(1)
        trainer.model.zero_grad()
        hidden = trainer.model.model(input_ids=ids, attention_mask=attention, pixel_values=pixel_values)[0]
        logps = trainer.model.lm_head(hidden[:, -width - 1 : -1]).log_softmax(-1)
        logps = logps.gather(-1, ids[:, -width:, None]).squeeze(-1)
        ratio = (logps - batch["old_per_token_logps"]).exp()
        error = (ratio - batch["target_ratio"][:, None]).abs() * batch["advantages"].abs()[:, None]
        loss = (error * batch["completion_mask"]).sum() / batch["completion_mask"].sum()
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])

    loss, actual = gradient(trainer, batch)
    expected_loss, expected = reference(batch["pixel_values"])
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert distance(actual, expected) < 1e-5
    assert distance(reference(batch["pixel_values"].flip(0))[1], expected) > 1e-3


def test_the_weight_check_scores_the_images(with_images):
    """vLLM's log-probs are compared with those of the policy given the images, not with those of a blank image."""
    trainer = with_images
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(4)])
    mask = batch["completion_mask"].bool()
    torch.testing.assert_close(trainer._policy_logps(batch)[mask], plain_logps(trainer, batch)[mask], atol=2e-6, rtol=0)
    blank = batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}
    assert (trainer._policy_logps(batch) - plain_logps(trainer, blank))[mask].abs().max() > 1e-3


def test_the_rows_that_the_weight_check_keeps_have_their_images(with_images):
    trainer = with_images
    batch = trainer._generate_and_score_completions([row for row in trainer.train_dataset for _ in range(4)])
    rows = trainer._first_micro_batch(batch)
    mask = rows["completion_mask"].bool()
    assert len(rows["pixel_values"]) == len(mask)
    torch.testing.assert_close(trainer._policy_logps(rows)[mask], plain_logps(trainer, rows)[mask], atol=2e-6, rtol=0)


@torch.no_grad()
def plain_logps(trainer, batch):
    """Log-probs of the completions from the logits of the model."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = trainer.model(input_ids=ids, attention_mask=attention, pixel_values=batch["pixel_values"]).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return logps[:, -batch["completion_ids"].size(1) :]
