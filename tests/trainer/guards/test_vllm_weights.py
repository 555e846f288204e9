"""vLLM's layer of the trainer, with a stand-in for the engine; tests/engines/test_vllm.py runs the real one."""

import copy
import json
import math
import os
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import torch
from transformers import AutoModelForCausalLM
from trl.generation import vllm_client, vllm_generation

from gbpo import GBPOConfig
from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.guards.vllm_weights import WeightCheck, correction_fraction, engine_dtype, masked_mean
from gbpo.trainer.sampling.seeds import SamplingSeeds, random_state
from gbpo.trainer.sampling.unbiased import biased_sampling, check_sampling
from gbpo.trainer.sampling.vllm_client import SeededClient, check_server, readable_errors


class StandIn:
    """Samples as a colocated vLLM does, from a copy of the checkpoint, with the random state of the process."""

    started: dict
    sampled: list
    receives_weights = True
    noise = 0.0  # of the log-probs that it reports

    def __init__(self, model, **options):
        StandIn.started, StandIn.sampled = options, []
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, options["dtype"]))
        config = SimpleNamespace(max_model_len=64)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(model_config=config, model_executor=SimpleNamespace(driver_worker=worker))
        torch.manual_seed(options["seed"])  # as the real one does, in the trainer's process

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
            StandIn.sampled.append(tokens)
        return outputs


@pytest.fixture
def engine(monkeypatch):
    """The stand-in in vLLM's place."""
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", StandIn, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", lambda **options: SimpleNamespace(**options), raising=False)
    monkeypatch.setattr(StandIn, "receives_weights", True)
    monkeypatch.setattr(StandIn, "noise", 0.0)
    return StandIn


def letters(completions, **kwargs):
    return [float(sum(map(ord, text)) % 5) for text in completions]


@pytest.fixture
def make(make_trainer, engine, monkeypatch):
    """`make_trainer` with the stand-in; the environment is left as before, or the next one would be distributed."""

    def make(algorithm="gbpo", **config):
        base = BaseTrainer if algorithm == "grpo" else None
        defaults = {"use_vllm": True, "vllm_mode": "colocate", "num_iterations": 1, "max_steps": 3}
        with monkeypatch.context() as environment:
            environment.setattr(os, "environ", os.environ.copy())
            return make_trainer(algorithm, reward_funcs=letters, base=base, **(defaults | config))

    return make


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


# --- dtype and seeds


def test_engine_has_the_dtype_of_the_trainer(make, engine):
    make(model_init_kwargs={"dtype": "float32"})
    assert engine.started["dtype"] == "float32"
    make(model_init_kwargs={"dtype": "bfloat16"})
    assert engine.started["dtype"] == "bfloat16"
    assert vllm_generation.LLM is engine, "TRL's module is left as it was"


def test_mixed_precision_names_the_dtype():
    assert engine_dtype(torch.float32, "bf16") == torch.bfloat16
    assert engine_dtype(torch.float32, "fp16") == torch.float16
    assert engine_dtype(torch.float32, "no") == torch.float32


def test_same_seed_same_samples_other_seed_others(make, engine):
    samples = {}
    for run, seed in {"first": 1, "again": 1, "other": 2}.items():
        make(seed=seed, max_steps=2).train()
        samples[run] = engine.sampled
    assert samples["first"] == samples["again"]
    assert len(samples["first"]) == 16
    assert all(a != b for a, b in zip(samples["first"], samples["other"], strict=True))
    assert all(a != b for a, b in zip(samples["first"][:8], samples["first"][8:], strict=True)), "two generations"


def test_resumed_run_draws_what_the_uninterrupted_one_draws(make, engine):
    """The engine is new and evaluation drew from it in between; neither may show."""
    whole = make(seed=1, max_steps=3, save_strategy="steps", save_steps=2)
    whole.train()
    drawn = engine.sampled[16:]
    again = make(seed=1, max_steps=3)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert engine.sampled == drawn


def test_each_rank_call_and_mode_has_its_own_stream(make):
    trainer = make(seed=1)
    trainer.model.train()

    def draw():
        return trainer._generate(["1+1="])[1][0]

    seen = [draw(), draw()]
    trainer.model.eval()
    seen.append(draw())
    trainer.model.train()
    trainer.state.global_step = 1
    seen.append(draw())
    trainer.state.global_step = 0
    trainer.sampling_seeds._generations.clear()
    assert draw() == seen[0]
    trainer.sampling_seeds._generations.clear()
    trainer.sampling_seeds = SamplingSeeds(1, replica=1)
    seen.append(draw())
    assert len({tuple(tokens) for tokens in seen}) == 5


def test_sampling_leaves_no_trace_in_the_random_states(make):
    trainer = make(seed=1)
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    trainer._generate(["1+1="])
    assert torch.rand(()) == expected


def test_random_state_is_as_before_after_an_error():
    def draw():
        return random.random(), np.random.random(), torch.rand(()).item()

    def seed():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    seed()
    expected = draw()
    seed()
    with pytest.raises(RuntimeError), random_state(0, torch.device("cpu")):
        draw()
        raise RuntimeError
    for drawn, wanted in zip(draw(), expected, strict=True):
        assert drawn == wanted


def test_shuffle_follows_the_seed_although_the_engine_sets_its_own(make):
    orders = []
    for seed in (1, 1, 2):
        make(seed=seed)
        orders.append(torch.randperm(100).tolist())
    assert orders[0] == orders[1] != orders[2]


# --- the canary


@pytest.mark.parametrize("correction", [True, False])
def test_synced_engine_is_proven(make, correction):
    trainer = make(vllm_importance_sampling_correction=correction, temperature=0.7)
    trainer.train()
    assert trainer.weight_check.proven
    gaps, movements = logged(trainer, "gbpo/vllm_logp_gap"), logged(trainer, "gbpo/vllm_logp_movement")
    assert len(gaps) == len(movements) == 2, "two syncs, and no more once it is proven"
    assert max(gaps) < 1e-5 < 1e-3 < movements[1]


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_weights_that_do_not_arrive_end_the_run(make, engine, monkeypatch, algorithm):
    monkeypatch.setattr(engine, "receives_weights", False)
    trainer = make(algorithm, max_steps=9)
    with pytest.raises(
        TrainingStopped, match="does not sample from the policy that is trained: at step 1 .* use_vllm: false"
    ):
        trainer.train()


def test_engine_of_another_model_ends_the_run_at_once(make, engine, monkeypatch):
    monkeypatch.setattr(engine, "noise", 0.05)
    with pytest.raises(TrainingStopped, match="at step 0 .* torch.float32 explains at most 0.01"):
        make().train()


def test_biased_sampler_is_judged_by_growth_alone(make, engine, monkeypatch):
    monkeypatch.setattr(engine, "noise", 0.05)
    trainer = make(top_p=0.9, learning_rate=1e-6)
    trainer.train()
    assert not trainer.weight_check.proven
    monkeypatch.setattr(engine, "noise", 0.001)
    monkeypatch.setattr(engine, "receives_weights", False)
    with pytest.raises(TrainingStopped, match="at step 1"):
        make(top_p=0.9).train()


@pytest.mark.parametrize(
    ("dtype", "gaps_and_movements", "alive", "proven"),
    [
        (torch.float32, [(0.0, 0.0), (0.0, 0.02)], True, True),
        (torch.float32, [(1e-5, 0.0), (0.008, 0.009)], False, False),  # within the tolerance, but all of the movement
        (torch.float32, [(1e-5, 0.0), (2e-4, 2e-4)], True, False),  # too small an update to tell
        (torch.float32, [(1e-6, 0.0), (5e-3, 0.06)], False, False),  # weights that arrive rounded to bfloat16
        (torch.float32, [(1e-6, 0.0), (6e-4, 0.06)], True, False),  # more rounding than at first: wait and see
        (torch.float32, [(0.02, 0.0)], False, False),  # a bfloat16 engine
        (torch.bfloat16, [(9e-4, 0.0), (9e-4, 0.2)], True, True),  # the numbers that were seen with vLLM
        (torch.bfloat16, [(9e-4, 0.0), (0.02, 0.02), (0.2, 0.2)], False, False),
        (torch.bfloat16, [(0.04, 0.0), (0.05, 0.1)], True, False),
        (torch.bfloat16, [(0.04, 0.0), (0.05, 0.3)], True, True),
        (torch.float32, [(0.0, 0.0), (math.nan, 0.02)], False, False),
    ],
)
def test_verdicts(dtype, gaps_and_movements, alive, proven):
    check = WeightCheck(None, dtype, biased=False, fix="", first_gap=gaps_and_movements[0][0])
    verdicts = [check.judge(*pair) for pair in gaps_and_movements]
    assert all(verdicts) == alive
    assert check.proven == proven


# --- the correction for what differs between the engines


MODES = ["token_mask", "token_truncate", "sequence_mask", "sequence_truncate"]


def corrected_loss(logps, old_logps, sampling_logps, targets, advantages, mode, low, high):
    """Token-mean of w·|A|·|ρ - ρ*| in plain Python, all completions of one length; its gradient by logp, and the part
    of the weights w outside [low, high]."""
    rows, tokens = logps.shape
    total, gradient, outside, weights = 0.0, torch.zeros_like(logps), [], {}
    for i in range(rows):
        ratios = [math.exp(old_logps[i, t] - sampling_logps[i, t]) for t in range(tokens)]
        if mode.startswith("sequence"):
            ratios = [math.prod(ratios)] * tokens
        for t, ratio in enumerate(ratios):
            out = not low <= ratio <= high
            outside.append(out)
            weights[i, t] = (0.0 if out else ratio) if mode.endswith("mask") else min(max(ratio, low), high)
            rho = math.exp(logps[i, t] - old_logps[i, t])
            scale = weights[i, t] * abs(advantages[i])
            total += scale * abs(rho - targets[i])
            gradient[i, t] = scale * math.copysign(1, rho - targets[i]) * rho
    return total / (rows * tokens), gradient / (rows * tokens), sum(outside) / len(outside)


@pytest.mark.parametrize("mode", MODES)
def test_bounded_loss_with_the_correction(make, engine, monkeypatch, gradient, distance, mode):
    """From the engine's samples to loss and gradient, against the formula written out."""
    monkeypatch.setattr(engine, "noise", 0.5)
    low, high = 0.7, 1.6
    trainer = make(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
        top_p=0.99,  # the stand-in ignores it; its log-probs would end the run otherwise
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([{"prompt": f"{i // 4}+1="} for i in range(8)])
    assert batch["advantages"].abs().min() < batch["advantages"].abs().max()
    with torch.no_grad():  # an optimiser step in between: ratios on both sides of their targets
        for p in trainer.model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * p.std()
    loss, actual = gradient(trainer, batch)

    trainer.model.zero_grad()
    logps = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        6,
    )[0]
    expected, by_logps, outside = corrected_loss(
        logps.detach().double(),
        batch["old_per_token_logps"].double(),
        batch["sampling_per_token_logps"].double(),
        batch["target_ratio"].tolist(),
        batch["advantages"].tolist(),
        mode,
        low,
        high,
    )
    logps.backward(by_logps.float())
    reference = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert distance(actual, reference) < 1e-5
    assert 0.1 < outside < 0.9
    name = "masked" if mode.endswith("mask") else "truncated"
    assert trainer._metrics["train"][f"gbpo/vllm_{name}_fraction"] == [pytest.approx(outside)]


@pytest.mark.parametrize("mode", MODES)
def test_fraction_outside_the_clip_range_leaves_out_what_no_policy_sampled(make, mode):
    """Rows: both tokens inside; one token outside; the same behind a tool's token; a row of a tool's tokens alone."""
    trainer = make(
        "grpo",
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=2.0,
    )
    ones = torch.ones(4, 2, dtype=torch.long)
    output = {
        "old_per_token_logps": torch.tensor([[0.1, 0.1], [1.0, 0.1], [1.0, 0.1], [9.0, 9.0]]),
        "sampling_per_token_logps": torch.tensor([[0.0, math.nan], [0.0, math.nan], [0.0, 0.0], [0.0, 0.0]]),
        "completion_mask": ones,
        "tool_mask": torch.tensor([[1, 1], [1, 1], [0, 1], [0, 0]]),
    }
    found = correction_fraction(output, ones * output["tool_mask"], mode, None, 2.0)
    fraction = 1 / 5 if mode.startswith("token") else 1 / 3
    assert masked_mean(*found, trainer.accelerator) == pytest.approx(fraction)


# --- what is refused or warned of


def config(**fields):
    return GBPOConfig("unused", use_cpu=True, bf16=False, num_generations=4, per_device_train_batch_size=8, **fields)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"top_p": 0.9}, "top_p=0.9"),
        ({"top_k": 50}, "top_k=50"),
        ({"min_p": 0.05}, "min_p=0.05"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1"),
        ({"vllm_structured_outputs_regex": "[0-9]"}, "vllm_structured_outputs_regex='[0-9]'"),
        ({"generation_kwargs": {"structured_outputs": {"regex": "a"}}}, "structured_outputs={'regex': 'a'}"),
        ({"generation_kwargs": {"temperature": 0.5}}, "temperature=0.5"),
        ({"generation_kwargs": {"logit_bias": {1: 2.0}}}, "logit_bias={1: 2.0}"),
        ({"generation_kwargs": {"top_p": 1.0}, "top_p": 0.9}, None),  # the engine takes the former
        ({"generation_kwargs": {"stop": ["\n"], "presence_penalty": 0.0}}, None),
        ({"temperature": 0.5}, None),
        ({"temperature": 0.5, "generation_kwargs": {"temperature": 0.5}}, None),
        ({"top_k": -1, "min_p": 0.0}, None),
    ],
)
def test_biased_sampling_is_named(fields, named):
    warning = biased_sampling(config(**fields))
    assert (warning is None) if named is None else warning.startswith(f"{named}: ")


def test_seed_in_the_sampling_options_is_refused():
    with pytest.raises(ValueError, match=r"seed=7: .* Remove it"):
        check_sampling(config(use_vllm=True, generation_kwargs={"seed": 7}))
    check_sampling(config(use_vllm=True, generation_kwargs={"stop": ["\n"]}))


# --- the server


class Server(ThreadingHTTPServer):
    """Answers as vLLM does, `failures` times with 503 first; tokens of a completion tell its seed."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.failures, self.requests = 0, []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.requests.append(body)
        choices = []
        for prompt in body.get("prompt", []):
            for i in range(body["n"]):
                logprobs = {"tokens": ["token_id:5"], "token_logprobs": [-1.0], "top_logprobs": [None]}
                seeded = [body["seed"] + i]
                choices.append({"prompt_token_ids": prompt, "token_ids": seeded, "logprobs": logprobs})
        self._answer({"choices": choices})

    def _answer(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server, monkeypatch):
    """A client of it that does not pause between its retries."""
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    client = SeededClient(vllm_client.VLLMClient(base_url=server.url))
    adapter = client.session.get_adapter(server.url)
    adapter.max_retries = adapter.max_retries.new(backoff_factor=0)
    client.stream = copy.deepcopy(RNG)
    return client


RNG = random.Random("a stream")
PROMPTS = [[1], [2, 3], [4]]


def test_prompts_of_a_server_have_seeds_of_their_own(client, server):
    first, second = (client.generate(prompts=PROMPTS, n=2) for _ in range(2))
    assert first["prompt_ids"] == PROMPTS
    seeds = [ids[0] for ids in first["completion_ids"] + second["completion_ids"]]
    assert len(set(seeds)) == 12
    client.stream = copy.deepcopy(RNG)
    assert client.generate(prompts=PROMPTS, n=2) == first


def test_short_outage_of_the_server_is_survived_and_noted(client, server):
    client.generate(prompts=PROMPTS)
    assert not client.was_gone()
    server.failures = 2
    assert len(client.generate(prompts=PROMPTS)["completion_ids"]) == 3
    assert client.was_gone()
    assert not client.was_gone()


def test_server_that_comes_back_is_found_again(client, server):
    """Between two requests it dies and another takes its place."""
    client.generate(prompts=PROMPTS[:1])
    port = server.server_port
    server.stop()
    pauses = []

    class Returning(type(client.session.get_adapter(server.url).max_retries)):
        def sleep(self, response=None):
            pauses.append(len(pauses))
            if len(pauses) == 2:
                self.__class__.back = Server(port)

    adapter = client.session.get_adapter(server.url)
    adapter.max_retries = Returning(total=5, allowed_methods=["POST"])
    assert client.generate(prompts=PROMPTS[:1])["prompt_ids"] == PROMPTS[:1]
    Returning.back.stop()
    assert pauses == [0, 1]
    assert client.was_gone()


def test_server_that_is_gone_ends_the_run_in_one_line(client, server):
    server.stop()
    with (
        pytest.raises(
            TrainingStopped, match=r"is gone: http://127.0.0.1:\d+/v1/completions failed after all retries"
        ) as error,
        readable_errors(),
    ):
        client.generate(prompts=PROMPTS[:1])
    assert "\n" not in str(error.value)
    assert "vllm serve" in str(error.value) and "last checkpoint" in str(error.value)
    assert requests.exceptions.ConnectionError.__name__ in str(error.value)


def test_run_waits_for_its_server(server):
    check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url))
    check_server(config(use_vllm=True, vllm_mode="colocate"))
    check_server(config(vllm_server_base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8000"])
def test_run_without_its_server_is_refused(url):
    with pytest.raises(ValueError, match=r"No vLLM server answers at .*/health \(waited 0 s: .*vllm serve"):
        check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=url, vllm_server_timeout=0.0))


def test_weights_are_compared_again_after_an_outage(make):
    trainer = make(max_steps=2)
    trainer.train()
    assert trainer.weight_check.proven
    trainer.args.vllm_mode = "server"
    trainer.vllm_generation.vllm_client = SimpleNamespace(was_gone=lambda: True)
    batch = trainer.weight_check.first_rows
    behind = batch["sampling_per_token_logps"] + 0.05  # what a server with the first weights would report
    now = trainer._policy_logps(batch)
    with pytest.raises(TrainingStopped, match="weight sync does not reach the engine"):
        trainer._check_engine({**batch, "old_per_token_logps": now, "sampling_per_token_logps": behind})
