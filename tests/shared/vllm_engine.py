"""A vLLM engine for tests without vLLM."""

from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM


class FakeEngine:
    """Samples like a colocated vLLM: from its own copy of the checkpoint, with the random states of the process."""

    started: dict
    sampled: list
    receives_weights = True
    noise = 0.0  # standard deviation of the noise in the reported log-probs

    def __init__(self, model, **options):
        FakeEngine.started, FakeEngine.sampled = options, []
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, options.get("dtype", "float32")))
        config = SimpleNamespace(max_model_len=64)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(model_config=config, model_executor=SimpleNamespace(driver_worker=worker))
        torch.manual_seed(options["seed"])  # vLLM also seeds the trainer's process

    def load_weights(self, weights):
        if self.receives_weights:
            with torch.no_grad():
                for name, weight in weights:
                    self.model.get_parameter(name).copy_(weight)

    def reset_prefix_cache(self):
        pass

    @torch.no_grad()
    def generate(self, prompts, sampling_params, use_tqdm):
        outputs = []
        for prompt in prompts:
            ids, tokens, logprobs = list(prompt["prompt_token_ids"]), [], []
            for _ in range(sampling_params.max_tokens):
                logits = self.model(torch.tensor([ids])).logits[0, -1].float() / sampling_params.temperature
                logps = logits.log_softmax(-1)
                token = torch.multinomial(logps.exp(), 1).item()
                logprob = logps[token].item() + self.noise * torch.randn(()).item()
                logprobs.append({token: SimpleNamespace(rank=1, logprob=logprob)})
                ids.append(token)
                tokens.append(token)
            completion = SimpleNamespace(token_ids=tokens, logprobs=logprobs)
            outputs.append(SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=[completion]))
            FakeEngine.sampled.append(tokens)
        return outputs
