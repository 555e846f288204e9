"""The files of the completions of a run."""

import gzip

import pytest

from gbpo.run.rollouts import files


def test_a_record_is_read_as_it_was_written(run):
    record = files.records_of_step(run, 11)[0]
    files.write(run.parent / "copy", record)
    (copy,) = files.files_of(run.parent / "copy")
    assert copy.path.name == "generation-00005-step-00011.jsonl.gz"
    assert files.read(copy.path) == record
    assert "onerror" in str(record)
    assert gzip.decompress(copy.path.read_bytes()).count(b"\n") == 2  # a header and one group


@pytest.mark.parametrize(("step", "generations"), [(1, [0]), (2, [0]), (3, [1]), (12, [5])])
def test_generations_of_a_step(run, step, generations):
    assert [record["generation"] for record in files.records_of_step(run, step)] == generations


def test_several_generations_of_one_step(made_up, tmp_path):
    for n, steps in enumerate([(1, 1), (1, 1), (1, 2), (2, 2)]):
        files.write(tmp_path, made_up(n, steps))
    assert [record["generation"] for record in files.records_of_step(tmp_path, 1)] == [0, 1, 2]
    assert [record["generation"] for record in files.records_of_step(tmp_path, 2)] == [2, 3]


def test_a_resumed_run_neither_keeps_nor_loses_generations(made_up, tmp_path):
    for n in range(4):
        files.write(tmp_path, made_up(n, (2 * n + 1, 2 * n + 2)))
    files.rewind(tmp_path, 3)  # within generation 1, which the resumed run writes again
    assert [file.generation for file in files.files_of(tmp_path)] == [0, 1]
    files.write(tmp_path, made_up(1, (3, 5)))
    assert [file.generation for file in files.files_of(tmp_path)] == [0, 1]
    assert files.records_of_step(tmp_path, 5)[0]["steps"] == [3, 5]


def test_a_truncated_file_is_named(made_up, tmp_path):
    files.write(tmp_path, made_up(0, (1, 1)))
    (file,) = files.files_of(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:50])
    with pytest.raises(ValueError, match="generation-00000-step-00001.jsonl.gz' cannot be read"):
        files.read(file.path)
