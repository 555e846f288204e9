"""Launching: the accelerate files, the Slurm script, and checks that the launched processes are one run."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from filelock import FileLock
from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
from transformers import TrainingArguments

from gbpo.run.processes import launcher
from gbpo.run.train import main

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny_math.yaml"
FILES = sorted((ROOT / "launch" / "accelerate").glob("*.yaml"))
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch")
FSDP2 = (*ACCELERATE, "--config_file", str(ROOT / "launch" / "accelerate" / "fsdp2.yaml"), "--num_processes", "2")
SMALL = ("--per_device_train_batch_size", 16, "--max_steps", 2, "--output_dir", "run")


def test_one_file_per_strategy():
    names = {"cpu", "single_gpu", "ddp", "fsdp2", "zero2", "zero3", "zero3_offload"}
    assert {path.stem for path in FILES} == names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path):
    """accelerate refuses unknown top-level keys, but does not check the keys below."""
    config = load_config_from_file(str(path))
    known = {action.dest for action in launch_command_parser()._actions}
    below = {**config.fsdp_config, **config.deepspeed_config}
    assert set(below) <= known
    assert config.num_machines == 1 and config.mixed_precision is None  # set in the recipe
    fixed = ("gradient_accumulation_steps", "gradient_clipping", "deepspeed_config_file")
    assert not set(below) & set(fixed)  # would contradict a recipe with other values


@pytest.mark.parametrize("name", ["qwen_math_7b", "qwen_math_fsdp2", "qwen_math_server", "qwen_math_zero3"])
def test_the_command_without_a_checkout_is_that_with_the_file_of_a_checkout(name):
    """A wheel has no folder `launch`, so the header of a recipe gives the settings of its file as flags."""
    header = (ROOT / "recipes" / f"{name}.yaml").read_text().split("\n\n")[0].replace("\\\n#", "")
    file = re.search(r"--config_file (\S+)", header)[1]
    words = re.search(rf"accelerate launch (.*) -m gbpo.run {name}( |$)", header, re.MULTILINE)[1].split()
    given, config = launch_command_parser().parse_args([*words, "script"]), load_config_from_file(str(ROOT / file))
    assert (given.use_fsdp, given.use_deepspeed) == (bool(config.fsdp_config), bool(config.deepspeed_config))
    assert (given.num_machines, given.num_processes) == (config.num_machines, config.num_processes) == (1, 8)
    below = {**config.fsdp_config, **config.deepspeed_config}
    below.pop("deepspeed_multinode_launcher", None)  # of several machines
    assert {key: str(getattr(given, key)).lower() for key in below} == {
        key: str(value).lower() for key, value in below.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_header_gives_command_hardware_and_recipes(path):
    header = path.read_text().split("\n\n")[0]
    assert f"accelerate launch --config_file launch/accelerate/{path.name} launch/gbpo.py recipes/" in header
    assert "Hardware:" in header and "oes with" in header
    for recipe in re.findall(r"recipes/\w+\.yaml", header):
        assert (ROOT / recipe).is_file()


def refusal(done):
    assert done.returncode != 0, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("gbpo: error: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    return lines[0]


@pytest.mark.parametrize("config", [None, "MULTI_CPU"])
def test_accelerate_that_starts_one_process_for_two(launch, tmp_path, config):
    arguments = ("--cpu", "--num_processes", "2")
    if config:
        (tmp_path / "cpu.yaml").write_text(f"distributed_type: {config}\nnum_processes: 2\nuse_cpu: true\n")
        arguments = ("--config_file", "cpu.yaml")
    done = launch(TINY, *SMALL, launcher=(*ACCELERATE, *arguments))
    line = refusal(done)
    assert "asked for 2 processes and started one" in line and "torchrun --nproc-per-node 2" in line
    assert not (tmp_path / "run").exists()


def test_fsdp_that_falls_back_to_ddp(launch, boxing_model, tmp_path):
    done = launch(TINY, *SMALL, "--model_name_or_path", boxing_model, launcher=FSDP2)
    line = refusal(done)
    assert "FSDP was asked for, but accelerate fell back to DDP" in line and "ddp.yaml" in line
    assert not (tmp_path / "run" / "config.json").exists()


def test_two_processes_without_a_common_group(launch, tmp_path):
    done = launch(TINY, *SMALL, "--use_cpu", "false", launcher=FSDP2)
    assert "started 2 processes, but this one is in a group of 1" in refusal(done)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_another_run_locks(launch, random_model, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        line = refusal(launch(TINY, *SMALL, "--model_name_or_path", random_model))
    assert "Another running process writes to output_dir='run'" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_one_process_that_sees_several_gpus(monkeypatch, tmp_path, capsys):
    """TRL would refuse them after the model is loaded."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 8))
    flags = [TINY, "--output_dir", tmp_path / "run", "--per_device_train_batch_size", 16]
    with pytest.raises(SystemExit, match="2"):
        main([str(flag) for flag in flags])
    error = capsys.readouterr().err
    assert "sees 8 GPUs" in error and "--processes 8" in error and "CUDA_VISIBLE_DEVICES=0" in error
    assert not (tmp_path / "run").exists()
    main([str(flag) for flag in [*flags, "--dry_run", "true"]])  # loads no model


COMMANDS = {
    "accelerate launch --num_processes 4 x.py": 4,
    "python -m accelerate.commands.launch --cpu --num_processes=3 x.py --num_processes 9": 3,
    "python /bin/accelerate launch --num_machines 2 --num_processes 2 --machine_rank 1 x.py recipe.yaml": 2,
    "accelerate-launch --config_file file.yaml x.py": 5,
    "accelerate-launch --config_file file.yaml --num_processes 1 x.py": 1,
    "accelerate launch x.py": 1,
    "bash run.sh": 1,
    "": 1,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_number_of_processes_on_the_command_line_of_accelerate(command, monkeypatch, tmp_path):
    (tmp_path / "file.yaml").write_text("distributed_type: MULTI_CPU\nnum_processes: 5\nuse_cpu: true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "default_config_file", "nowhere.yaml")
    parent = type("Parent", (), {"cmdline": lambda self: command.split()})()
    monkeypatch.setattr(psutil.Process, "parent", lambda self: parent)
    assert launcher._processes_asked_of_accelerate() == COMMANDS[command]


def test_a_sharded_parameter_is_recognized(tmp_path):
    whole = torch.nn.Parameter(torch.ones(4))
    assert not launcher.is_sharded(whole)
    whole.ds_tensor, whole.ds_numel = torch.ones(2), 4
    assert launcher.is_sharded(whole)
    whole.ds_numel = 2
    assert not launcher.is_sharded(whole)
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=torch.distributed.HashStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        assert launcher.is_sharded(DTensor.from_local(torch.ones(4), mesh, [Shard(0)]))
        assert not launcher.is_sharded(DTensor.from_local(torch.ones(4), mesh, [Replicate()]))
    finally:
        torch.distributed.destroy_process_group()


# Replacements for Slurm's commands: each writes its arguments to a file. The test sets how server and training end.
REPLACEMENTS = {
    "scontrol": 'case $1 in show) printf "%s\\n" $NODES ;; esac',
    "curl": "grep -q 'vllm\tserve' $LOG && exit $HEALTHY",
    "sleep": "",
    "srun": 'case "$*" in *"vllm serve"*) $SERVER ;; *) [ "$SIGNAL" = "" ] || kill -$SIGNAL $PPID; $TRAINING ;; esac',
}
FOREVER = "exec tail -f /dev/null"


@pytest.fixture
def sbatch(tmp_path):
    """`sbatch(nodes, *flags, **environment)` returns the finished script and the commands it ran, as lists of words."""

    def run(nodes, *flags, **environment):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        log = tmp_path / "commands"
        log.write_text("")
        for name, body in REPLACEMENTS.items():
            text = f'#!/bin/bash\nwords=$(printf "%s\\t" {name} "$@")\necho "$words" >> {log}\n{body}\n'
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        names = " ".join(f"node{i}" for i in range(1, nodes + 1))
        environment = {
            "PATH": f"{folder}:/usr/bin:/bin",
            "SLURM_JOB_NODELIST": "packed",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NAME": "gbpo",
            "LOG": str(log),
            "NODES": names,
            "HEALTHY": "0",
            "SIGNAL": "",
            "SERVER": FOREVER,
            "TRAINING": "",
            **environment,
        }
        command = ["bash", str(ROOT / "launch" / "slurm" / "gbpo.sbatch"), *map(str, flags)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return done, [line.split("\t")[:-1] for line in log.read_text().splitlines()]

    return run


def of(commands, name):
    return [" ".join(words[1:]) for words in commands if words[0] == name]


RECIPE = "recipes/qwen_math.yaml"


@pytest.mark.parametrize("nodes", [1, 3])
def test_slurm_colocate(sbatch, nodes):
    done, commands = sbatch(nodes, RECIPE, "--seed", 3, GENERATION="colocate", GPUS_PER_NODE="4")
    assert done.returncode == 0, done.stderr
    (command,) = of(commands, "srun")
    names = ",".join(f"node{i}" for i in range(1, nodes + 1))
    assert command.startswith(f"--nodes={nodes} --ntasks={nodes} --nodelist={names} --kill-on-bad-exit=1 bash -c ")
    launched = (
        f"--config_file launch/accelerate/zero3.yaml --num_machines {nodes} --num_processes {4 * nodes} "
        "--main_process_ip node1 --main_process_port 29500 "
        f"launch/gbpo.py {RECIPE} --seed 3 --use_vllm true --vllm_mode colocate "
        "--output_dir runs/gbpo-7 --resume_from_checkpoint auto"
    )
    assert command.endswith(launched)
    assert not of(commands, "curl")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ((), "bfloat16"),
        (("--dtype", "float32"), "bfloat16"),
        (("--fp16", "true"), "float16"),
        (("--bf16", "false"), "float32"),
        (("--bf16=false", "--dtype", "float16"), "float16"),
    ],
)
def test_slurm_server(sbatch, flags, dtype):
    """The server computes in the trainer's dtype: bfloat16 unless the recipe or the command line says otherwise."""
    done, commands = sbatch(3, RECIPE, *flags, VLLM_ARGS="--max-model-len 4096")
    assert done.returncode == 0, done.stderr
    server, training = sorted(of(commands, "srun"), key=lambda command: "launch/gbpo.py" in command)
    assert server == (
        "--nodes=1 --ntasks=1 --nodelist=node3 env VLLM_SERVER_DEV_MODE=1 vllm serve Qwen/Qwen2.5-Math-1.5B "
        f'--dtype {dtype} --host 0.0.0.0 --port 8000 --weight-transfer-config {{"backend": "nccl"}} '
        "--logprobs-mode processed_logprobs --max-logprobs -1 --max-model-len 4096"
    )
    assert of(commands, "curl")[0].endswith("http://node3:8000/health")
    assert "--nodes=2 --ntasks=2 --nodelist=node1,node2 " in training
    assert "--num_machines 2 --num_processes 16 --main_process_ip node1 " in training
    assert "--use_vllm true --vllm_mode server --vllm_server_host node3 --vllm_server_port 8000 " in training


@pytest.mark.parametrize(
    ("flags", "environment", "output"),
    [
        (("--output_dir", "runs/mine"), {}, "runs/mine"),
        (("--output-dir=runs/mine",), {}, "runs/mine"),
        (("--output_dir", "runs/mine"), {"OUTPUT": "runs/other"}, "runs/other"),
    ],
)
def test_slurm_output_folder(sbatch, flags, environment, output):
    _, commands = sbatch(1, RECIPE, *flags, GENERATION="colocate", **environment)
    (command,) = of(commands, "srun")
    assert command.endswith(f" --output_dir {output} --resume_from_checkpoint auto")


def test_slurm_server_has_the_model_of_the_command_line(sbatch):
    for flag in (["--model_name_or_path", "mine/model"], ["--model-name-or-path=mine/model"]):
        _, commands = sbatch(2, RECIPE, *flag)
        assert any("vllm serve mine/model --dtype " in command for command in of(commands, "srun"))


def test_slurm_rank_of_the_node_is_its_task(tmp_path):
    """Runs the command that srun starts on each node, with a replacement for accelerate."""
    script = (ROOT / "launch" / "slurm" / "gbpo.sbatch").read_text()
    inner = re.search(r"bash -c '(.*)' launch", script)[1]
    (tmp_path / "accelerate").write_text('#!/bin/bash\necho "$@"\n')
    (tmp_path / "accelerate").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", inner, "launch", "--config_file", "a b.yaml"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_PROCID": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "launch --machine_rank 2 --config_file a b.yaml"


REFUSED = {
    "never healthy": ({"HEALTHY": "22", "HEALTH_TIMEOUT": "0"}, "not healthy within HEALTH_TIMEOUT=0 s"),
    "server ended": ({"HEALTHY": "22", "SERVER": "exit 1"}, "ended before it was healthy"),
    "one node": ({"nodes": 1}, "--nodes=2 or more, or GENERATION=colocate"),
    "unknown generation": ({"GENERATION": "both"}, "GENERATION=both is unknown"),
    "no recipe": ({"recipe": "nowhere.yaml"}, "no recipe 'nowhere.yaml'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_slurm_script_ends_with_one_line_before_training(sbatch, case):
    environment, words = REFUSED[case]
    environment = dict(environment)
    done, commands = sbatch(environment.pop("nodes", 3), environment.pop("recipe", RECIPE), **environment)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith("gbpo.sbatch: error: ") and words in line
    assert not any("launch/gbpo.py" in command for command in of(commands, "srun"))


def test_slurm_script_returns_the_status_of_the_training(sbatch):
    done, commands = sbatch(2, RECIPE, TRAINING="exit 3")
    assert done.returncode == 3
    assert of(commands, "scontrol") == ["show hostnames packed"]  # not requeued


def test_slurm_job_is_requeued_at_the_time_limit(sbatch):
    done, commands = sbatch(2, RECIPE, SIGNAL="USR1", TRAINING=FOREVER)
    assert done.returncode == 0, done.stderr
    assert of(commands, "scontrol") == ["show hostnames packed", "requeue 7"]


def test_slurm_script_asks_for_requeueing_and_the_signal():
    script = (ROOT / "launch" / "slurm" / "gbpo.sbatch").read_text()
    for option in ("--requeue", "--open-mode=append", "--signal=B:USR1@300", "--ntasks-per-node=1"):
        assert f"#SBATCH {option}\n" in script
