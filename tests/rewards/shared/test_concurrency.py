"""Threads and the default number of workers."""

from rewards.shared.concurrency import default_workers


def test_ranks_of_one_machine_share_its_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(32)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    for ranks, workers in ((1, 31), (8, 3), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert default_workers() == workers
