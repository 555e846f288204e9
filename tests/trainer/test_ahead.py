"""Runs with `generate_ahead`: which weights sample, what is used when, resuming, both anchors, and a server."""

import threading
import time
from contextlib import ExitStack

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import IA3Config, LoraConfig
from trl.generation import vllm_client

from evals.bench.stand_in import served
from evals.bench.vllm_server import weights_by_file
from gbpo import GBPOConfig
from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.base import BaseTrainer
from gbpo.trainer.config import BaseConfig
from gbpo.trainer.guards.collapse import CollapseWatch
from gbpo.trainer.guards.phase_times import PHASES
from gbpo.trainer.sampling.adapter_sync import why_merged
from rollouts import character_sum

PROMPTS = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(9)]})  # 4 generations of 2 prompts per epoch
UPDATES = 4  # per generation: 2 micro-batches, 2 iterations
STEPS = 6 * UPDATES
TIMES = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
TIMES |= {f"time/{phase}" for phase in PHASES}


def reward(completions, log_extra=None, **kwargs):
    log_extra("letters", [len(text) for text in completions])
    return character_sum(completions)


@pytest.fixture
def make(make_trainer, tmp_path):
    """`make("gbpo" | "grpo", K, **config)`: a trainer of 6 generations with 4 optimiser steps each."""

    def make(algorithm="gbpo", ahead=None, folder="run", **config):
        defaults = {
            "per_device_train_batch_size": 4,
            "steps_per_generation": 2,
            "num_iterations": 2,
            "max_steps": STEPS,
        }
        defaults |= {"seed": 3, "log_completions": True, "num_completions_to_print": 0, "reward_funcs": reward}
        if algorithm == "grpo":
            defaults |= {"base": BaseTrainer, "config_class": BaseConfig}
        if ahead is not None:
            defaults["generate_ahead"] = ahead
        config = {"dataset": PROMPTS, "output_dir": str(tmp_path / folder)} | defaults | config
        return make_trainer(algorithm, **config)

    return make


def history(trainer):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in trainer.state.log_history]


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def checksum(trainer):
    return float(sum(p.detach().double().sum() for p in trainer.model.parameters()))


def trained(trainer):
    trainer.train()
    return trainer


@pytest.fixture
def recorded(monkeypatch):
    """`recorded(trainer)` trains, and returns what was sampled and used for each generation.

    `sampled`: prompts, completions and weights of each call of the engine. `used`: those of each generation, with the
    weights before the training on it.
    """

    def run(trainer):
        sampled, used = [], []
        generate, score = trainer.model.generate, trainer._scored

        def record(*args, **kwargs):
            ids = generate(*args, **kwargs)
            sampled.append((checksum(trainer), ids.tolist()))
            return ids

        def record_use(inputs):
            batch, advantages = score(inputs)
            lengths = batch["completion_mask"].sum(1).tolist()
            rows = [row[:n] for row, n in zip(batch["completion_ids"].tolist(), lengths, strict=True)]
            used.append((checksum(trainer), [row["prompt"] for row in inputs], rows))
            return batch, advantages

        monkeypatch.setattr(trainer.model, "generate", record)
        monkeypatch.setattr(trainer, "_scored", record_use)
        trainer.train()
        return sampled, used

    return run


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_with_0_the_run_is_bitwise_the_same(make, algorithm):
    without = trained(make(algorithm))
    zero = trained(make(algorithm, 0))
    assert history(zero)[:-1] == history(without)[:-1]
    assert same_weights(zero, without)


@pytest.mark.sweep
@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_generation_n_is_sampled_with_the_weights_after_generation_n_minus_k_minus_1(make, recorded, ahead):
    trainer = make("gbpo", ahead, exact_speedups=["none"])
    sampled, used = recorded(trainer)
    assert len(sampled) == len(used) == 6, "nothing is sampled beyond the end of the run"
    before = [used_weights for used_weights, _, _ in used]  # before the training on generation n
    assert len(set(before)) == 6, "each generation changes the weights"
    assert [found for found, _ in sampled] == [before[max(0, n - ahead)] for n in range(6)]
    for (_, ids), (_, _, rows) in zip(sampled, used, strict=True):
        texts = [" ".join(map(str, whole)) for whole in ids]
        assert all(" ".join(map(str, row)) in text for row, text in zip(rows, texts, strict=True))


def test_the_prompts_and_the_first_completions_do_not_depend_on_k(make, recorded):
    """The weights of the start sample the generations 0 to K, so these are equal for each K that is large enough."""
    runs = {ahead: recorded(make("gbpo", ahead, f"run{ahead}"))[1] for ahead in (0, 1, 3)}
    prompts = {ahead: [texts for _, texts, _ in used] for ahead, used in runs.items()}
    assert prompts[0] == prompts[1] == prompts[3] and len({str(texts) for texts in prompts[0]}) == 6
    completions = {ahead: [rows for _, _, rows in used] for ahead, used in runs.items()}
    assert completions[0][0] == completions[1][0] == completions[3][0]
    assert completions[1][1] == completions[3][1] and completions[1][2] != completions[3][2]
    assert len({str(rows) for rows in completions[3]}) == 6, "no two generations share their noise"


def test_the_first_generation_trains_as_without_it(make):
    """Its completions, its order and its ratios are the same. The importance ratios are 1 up to rounding."""
    config = {"max_steps": UPDATES, "optim": "sgd", "learning_rate": 0.3}
    now, ahead = trained(make("gbpo", 0, "now", **config)), trained(make("gbpo", 2, "ahead", **config))
    for a, b in zip(weights(now), weights(ahead), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
@pytest.mark.parametrize("anchor", ["trainer", "sampler"])
def test_a_resumed_run_is_bitwise_equal(make, tmp_path, algorithm, anchor):
    """From every optimiser step of the second and third generation. Epochs end between them."""
    config = {"ratio_anchor": anchor, "save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
    whole = make(algorithm, 2, "whole", **config)
    whole.train()
    for step in range(UPDATES, 3 * UPDATES + 1):
        again = make(algorithm, 2, f"again-{step}", **config)
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert history(again)[:-1] == history(whole)[:-1], step
        assert same_weights(again, whole), step
        for path in sorted((tmp_path / f"again-{step}" / "completions").glob("*.parquet")):
            assert path.read_bytes() == (tmp_path / "whole" / "completions" / path.name).read_bytes(), path.name


@pytest.mark.sweep
@pytest.mark.parametrize(("before", "after"), [(2, 0), (2, 1), (0, 2), (1, 3)])
def test_a_run_may_be_resumed_with_another_k(make, tmp_path, before, after):
    make("gbpo", before, "run", save_strategy="steps", save_steps=6).train()
    again = make("gbpo", after, "again")
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    assert again.state.global_step == STEPS
    ages = {row["gbpo/staleness/max"] for row in history(again)[16:-1] if "gbpo/staleness/max" in row}
    assert max(ages, default=None) == (after * UPDATES + UPDATES - 1 if after else None)


# --- ratios and ages


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
@pytest.mark.parametrize("anchor", ["trainer", "sampler"])
def test_ages_and_ratios_are_logged(make, algorithm, anchor):
    trainer = make(algorithm, 1, ratio_anchor=anchor)
    trainer.train()
    rows = {row["step"]: row for row in history(trainer)[:-1]}
    for step, row in rows.items():
        generation, update = divmod(step - 1, UPDATES)
        age = update if generation == 0 else UPDATES + update
        assert row["gbpo/staleness/mean"] == row["gbpo/staleness/max"] == age, step
        first_use = update == 0
        assert ("gbpo/effective_sample_size" in row) == first_use
        assert ("gbpo/vllm_masked_fraction" in row) == (first_use and anchor == "trainer")
        if first_use and generation:
            assert 0 < row["gbpo/effective_sample_size"] < 1
            assert row["gbpo/ratio_at_first_use/min"] < 0.99 < 1.01 < row["gbpo/ratio_at_first_use/max"]
            # with the anchor "sampler" the ratios of the loss are these; with "trainer" they are 1
            is_one = row["gbpo/ratio_p01"] == row["gbpo/ratio_p99"] == 1.0
            assert is_one == (anchor == "trainer")


@pytest.fixture
def gradients(monkeypatch):
    """`gradients(trainer)` trains, and returns the gradient of each optimiser step."""

    def run(trainer):
        found, step = [], trainer.training_step

        def record(model, *args):
            loss = step(model, *args)
            found.append([p.grad.clone() for p in model.parameters()])
            return loss

        monkeypatch.setattr(trainer, "training_step", record)
        trainer.train()
        return found

    return run


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_the_weights_of_the_decoupled_loss_act_on_completions_of_transformers(make, gradients, algorithm):
    """The importance ratios π/μ are truncated to [1e-3, 2e-3].

    At first use all ratios are above 2e-3, so each token has the weight 2e-3, and the gradient is 2e-3 times
    that without correction.
    """
    limits = {"vllm_importance_sampling_clip_min": 1e-3, "vllm_importance_sampling_clip_max": 2e-3}
    config = {"vllm_importance_sampling_mode": "token_truncate", "max_steps": UPDATES + 1, "max_grad_norm": 0.0}
    config |= {"learning_rate": 1e-3, "optim": "sgd"}
    plain = gradients(make(algorithm, 1, "plain", vllm_importance_sampling_correction=False, **config))
    weighted = gradients(make(algorithm, 1, "weighted", **limits, **config))
    for a, b in zip(weighted[0], plain[0], strict=True):
        torch.testing.assert_close(a, 2e-3 * b, rtol=1e-4, atol=1e-9)
    assert max(p.abs().max() for p in plain[0]) > 1e-2


@pytest.mark.sweep
@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_completions_beyond_the_limit_do_not_act(make, gradients, algorithm):
    """With a limit of 5, the ages 6 and 7 (the last two steps on each stale generation) change nothing."""
    trainer = make(algorithm, 1, max_staleness=5)
    largest = [max(p.abs().max().item() for p in step) for step in gradients(trainer)]
    assert all(value == 0 for i, value in enumerate(largest) if i >= UPDATES and i % UPDATES >= 2)
    assert any(value > 0 for i, value in enumerate(largest) if i >= UPDATES and i % UPDATES == 1), "an age of 5 acts"
    dropped = {row["step"] - 1: row["gbpo/dropped_stale"] for row in history(trainer)[:-1]}
    assert all(value == 0 for number, value in dropped.items() if number < UPDATES or number % UPDATES < 2)
    assert any(value > 0 for value in dropped.values())


@pytest.mark.sweep
def test_a_collapse_ends_the_run(make):
    """The rewards of a generation are logged when it is used, so the third log without a grade ends the run."""
    seen = []

    def ungraded_later(completions, **kwargs):
        seen.append(len(completions))
        return character_sum(completions) if len(seen) == 1 else [None] * len(completions)

    trainer = make("gbpo", 2, reward_funcs=ungraded_later)
    trainer.add_callback(CollapseWatch(stop=True))
    with pytest.raises(TrainingStopped, match="No completion was graded"):
        trainer.train()
    assert len(seen) == 4 and trainer.state.global_step == 3 * UPDATES + 1


@pytest.mark.parametrize("algorithm", ["gbpo", "grpo"])
def test_an_evaluation_is_sampled_with_the_weights_of_its_step(make, recorded, algorithm):
    """Transformers samples its 8 completions at steps 3 and 6, and no age is logged for it."""
    config = {"eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 8, "max_steps": 6}
    sets = {"trainer": {"eval_dataset": PROMPTS.select(range(2))}}
    trainer = make(algorithm, 1, exact_speedups=["none"], **config, **sets)
    sampled, _ = recorded(trainer)
    assert len(sampled) == 2 + 2
    evaluations = [row for row in history(trainer) if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [3, 6]
    assert not [name for row in evaluations for name in row if "staleness" in name or "first_use" in name]
    assert len({weights_then for weights_then, _ in sampled}) == 3, "generations 0 and 1 have the weights of the start"


# --- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generate_ahead": -1}, "generate_ahead=-1 would use completions before they are sampled"),
        ({"max_staleness": 3}, "max_staleness=3 has no effect with generate_ahead=0"),
        (
            {"generate_ahead": 2, "max_staleness": 1},
            "max_staleness=1 would leave out every completion.* Write 8 or more",
        ),
        (
            {"generate_ahead": 2, "max_staleness": 7},
            "max_staleness=7 would leave out every completion.* Write 8 or more",
        ),
        ({"ratio_anchor": "sampler"}, "needs the log-probs that vLLM reports, but use_vllm is false"),
    ],
)
@pytest.mark.parametrize("config_class", [GBPOConfig, BaseConfig])
def test_values_that_cannot_be_meant(tmp_path, config_class, options, message):
    sizes = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "num_generations": 4}
    with pytest.raises(ValueError, match=message):
        config_class(str(tmp_path), use_cpu=True, bf16=False, **sizes, **options)


def test_the_least_limit_is_accepted(tmp_path):
    sizes = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "num_generations": 4}
    GBPOConfig(str(tmp_path), use_cpu=True, bf16=False, **sizes, generate_ahead=2, max_staleness=8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"trainer": {"rollout_func": lambda prompts, trainer: {}}}, "a rollout_func samples by itself"),
        ({"dataset": IterableDataset.from_generator(lambda: iter(PROMPTS))}, "without a length"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused_by_name(make, config, message):
    with pytest.raises(ValueError, match=f"generate_ahead=1 cannot be used here: .*{message}.*Write generate_ahead: 0"):
        make("gbpo", 1, **config)


def test_an_engine_that_does_not_overlap_is_a_hazard(make):
    (line,) = [hazard for hazard in make("gbpo", 1).args.hazards() if "generate_ahead" in hazard]
    assert "use_vllm=False: completions are stale, but the run is not faster" in line and "\n" not in line


# --- a colocated engine


def test_a_colocated_engine_has_the_same_meaning(make_with_vllm, engine):
    """6 generations with one optimiser step each; the engine has the weights of the step at which it samples."""
    sampled = {}
    for ahead in (0, 2):
        trainer = make_with_vllm("gbpo", generate_ahead=ahead, max_steps=6, temperature=1.3, seed=3)
        trainer.train()
        assert trainer.weight_check.proven
        sampled[ahead] = list(engine.sampled)
    rows = history(trainer)[:-1]
    assert [row["gbpo/staleness/max"] for row in rows] == [0, 1, 2, 2, 2, 2]
    assert len(sampled[0]) == len(sampled[2]) == 6 * 8
    assert sampled[0][:8] == sampled[2][:8] and sampled[0][8:16] != sampled[2][8:16]


# --- a server


@pytest.fixture
def server(random_model):
    with served(random_model) as server, weights_by_file():
        yield server


@pytest.fixture
def make_with_server(make, server):
    def with_server(algorithm="gbpo", ahead=1, folder="run", **config):
        config = {"use_vllm": True, "vllm_mode": "server", "temperature": 1.3} | config
        url = f"http://127.0.0.1:{server.server_port}"
        return make(algorithm, ahead, folder, vllm_server_base_url=url, **config)

    return with_server


def test_a_server_samples_while_the_trainer_trains(make_with_server, server):
    """Weights are sent only between generations, each group is asked for once, and the weights are proven."""
    trainer = make_with_server(ahead=1)
    trainer.train()
    assert server.seen["loads"] == 5 and server.seen["loads_while_sampling"] == 0
    asked = [tuple(row) for row in server.seen["prompts"]]
    assert len(asked) == len(set(asked))
    assert trainer.weight_check.proven
    rows = history(trainer)[:-1]
    assert [row["gbpo/staleness/max"] for row in rows] == [*range(4), *list(range(4, 8)) * 5]


def test_a_server_and_transformers_have_the_same_meaning(make_with_server, server, monkeypatch):
    """The weights with which each generation is sampled, by the server and by the formula."""
    trainer, sent = make_with_server(ahead=2), []
    reload_weights = server.reload_weights

    def record(request):
        answer = reload_weights(request)
        sent.append((trainer.state.global_step, len(server.seen["prompts"])))
        return answer

    monkeypatch.setattr(server, "reload_weights", record)
    trainer.train()
    # 3 generations of 2 prompts, and the probe, with the weights of the start; then one generation after each training
    assert [step for step, _ in sent] == [0, UPDATES, 2 * UPDATES, 3 * UPDATES]
    groups = [b - a for (_, a), (_, b) in zip(sent, [*sent[1:], (0, len(server.seen["prompts"]))], strict=True)]
    assert groups[0] == 3 * 2 + 1 and all(count in (2, 3) for count in groups[1:])


@pytest.mark.sweep
@pytest.mark.parametrize("step", [UPDATES + 1, 2 * UPDATES])
def test_a_resumed_run_asks_a_server_for_no_completion_twice(make_with_server, server, tmp_path, step):
    config = {"save_strategy": "steps", "save_steps": 1}
    whole = make_with_server("gbpo", 2, "whole", **config)
    whole.train()
    asked = list(map(tuple, server.seen["prompts"]))
    before = asked[: len(asked)]
    server.seen["prompts"].clear()
    again = make_with_server("gbpo", 2, "again", **config)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    later = list(map(tuple, server.seen["prompts"]))
    generations = 6 - (-(-step // UPDATES) + 2)  # those that were not sampled when the checkpoint was saved
    assert len([row for row in later if row in before]) == generations * 2
    ignored = {"gbpo/vllm_logp_gap", "gbpo/vllm_logp_movement"}
    mine, theirs = (
        [{k: v for k, v in row.items() if k not in ignored} for row in history(t)[:-1]] for t in (again, whole)
    )
    assert mine == theirs
    assert same_weights(again, whole)


@pytest.mark.slow
def test_an_evaluation_waits_for_the_server(make_with_server, server):
    server.seconds = 0.3  # longer than the training on a generation
    trainer = make_with_server(
        ahead=1, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=8, trainer={"eval_dataset": PROMPTS}
    )
    trainer.train()
    assert server.seen["loads"] > 6 and server.seen["loads_while_sampling"] == 0


@pytest.mark.slow
def test_a_slow_reward_is_computed_while_others_are_sampled(make_with_server, server):
    """Groups are answered one after the other. Only the reward of the last one comes after the sampling."""
    server.slots, server.seconds = threading.Semaphore(1), 0.3

    def slow(completions, **kwargs):
        time.sleep(0.02 * len(completions))  # 0.08 s per group
        return character_sum(completions)

    config = {"per_device_train_batch_size": 8, "steps_per_generation": 2, "num_iterations": 1, "max_steps": 8}
    trainer = make_with_server(ahead=1, reward_funcs=slow, **config)
    trainer.train()
    assert all(row["time/reward"] < 0.03 for row in trainer.state.log_history[2:-1])


def test_a_server_that_dies_ends_the_run_with_one_line(make_with_server, server, monkeypatch):
    trainer = make_with_server(ahead=1)
    monkeypatch.setattr(vllm_client.time, "sleep", lambda seconds: None)
    step = trainer.training_step

    def stops(*args):
        if trainer.state.global_step == UPDATES + 1:
            server.shutdown()
            server.server_close()
            trainer.ahead.background.client.session.close()
        return step(*args)

    trainer.training_step = stops
    with pytest.raises(TrainingStopped, match="The vLLM server is gone"):
        trainer.train()


# --- adapters


@pytest.fixture
def make_with_adapters(make, random_model):
    """`make_with_adapters(ahead, **options of the server)`: a trainer of a LoRA adapter, and its server."""
    with weights_by_file(), ExitStack() as stack:

        def with_adapters(ahead=1, withheld=False, lora_rank=8, **config):
            server = stack.enter_context(served(random_model, lora_rank=lora_rank))
            if withheld:
                server.load_adapter = server.unload_adapter = lambda request: {}
            lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
            config = {"use_vllm": True, "vllm_mode": "server", "temperature": 1.3, "learning_rate": 3e-2} | config
            url = f"http://127.0.0.1:{server.server_port}"
            return make("gbpo", ahead, vllm_server_base_url=url, trainer={"peft_config": lora}, **config), server

        yield with_adapters


@pytest.mark.sweep
@pytest.mark.parametrize("ahead", [0, 1])
def test_only_the_adapter_goes_to_the_server(make_with_adapters, tmp_path, ahead):
    trainer, server = make_with_adapters(ahead)
    trainer.vllm_generation.sync_weights = None  # would send the merged weights
    trainer.train()
    assert trainer.weight_check.proven
    assert server.seen["loads"] == (6 if ahead == 0 else 5) and server.seen["loads_while_sampling"] == 0
    (name,) = server.adapters  # earlier adapters are removed
    assert name.endswith(f"-{STEPS - UPDATES * (1 + ahead)}")
    assert [path.name for path in (tmp_path / "run" / "_adapter").iterdir()] == [name]


@pytest.mark.sweep
@pytest.mark.parametrize("ahead", [0, 1])
def test_an_adapter_that_does_not_arrive_ends_the_run(make_with_adapters, ahead):
    trainer, _ = make_with_adapters(ahead, withheld=True)
    with pytest.raises(TrainingStopped, match="vLLM does not sample from the policy that is trained"):
        trainer.train()


@pytest.mark.slow
def test_a_server_without_adapters_gets_the_merged_weights(make_with_adapters):
    trainer, server = make_with_adapters(lora_rank=0)
    trainer.train()
    assert trainer.adapter_sync is None and trainer.weight_check.proven and server.seen["loads"] == 5


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LoraConfig(modules_to_save=["lm_head"]), "modules_to_save=['lm_head'] trains whole modules"),
        (LoraConfig(use_dora=True), "use_dora=True"),
        (LoraConfig(bias="all"), "bias='all' trains biases"),
        (IA3Config(), "the adapter is IA3, not LoRA"),
        (LoraConfig(use_rslora=True), None),
    ],
)
def test_adapters_that_vllm_cannot_run_are_merged(config, reason):
    assert why_merged(config) == reason


# --- votes and further groups


@pytest.mark.slow
def test_votes_are_sampled_with_the_completions(make_with_server, server):
    """Each further round of votes comes from the same weights, with seeds of its own."""
    seen = []

    class Votes:
        votes = 8
        __name__ = "votes"

        def __call__(self, completions, extra_votes, **kwargs):
            seen.append((len(completions), [len(some) for some in extra_votes]))
            return character_sum(completions)

    make_with_server(ahead=1, reward_funcs=Votes()).train()
    assert seen == [(8, [1] * 8)] * 6
    assert server.seen["loads_while_sampling"] == 0


@pytest.mark.slow
def test_resampled_groups_are_new(make_with_server):
    """Further groups are sampled when a generation is used, with the weights of then: their age is 0."""

    def is_odd(completion_ids, **kwargs):
        return [float(sum(ids) % 2) for ids in completion_ids]  # 1 of 8 groups of 4 has no signal

    trainer = trained(make_with_server(ahead=1, resample_zero_signal_groups=True, reward_funcs=is_odd))
    rows = history(trainer)[:-1]
    assert sum(row.get("gbpo/resampled_groups", 0) for row in rows) > 0
    later = [row for row in rows if row["step"] > UPDATES and "gbpo/staleness/mean" in row]
    assert any(row["gbpo/staleness/mean"] < row["gbpo/staleness/max"] for row in later)
