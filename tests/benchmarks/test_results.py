"""Rows are on disk whole, or not at all."""

import concurrent.futures
import json
from pathlib import Path

import pytest
from oracles.experiments import small

from keras_nalu.benchmarks.results import Results

FOUR = [{"range": name, "seed": seed} for name in "ab" for seed in range(2)]


def test_rows_are_kept_whole(tmp_path):
    results = Results(tmp_path)
    experiment = small()
    assert not results.has(experiment, "jax")
    path = results.write(experiment, "jax", FOUR)
    assert results.has(experiment, "jax")
    assert not results.has(experiment, "tensorflow")
    assert not results.has(small(seeds=3), "jax")
    assert [json.loads(line) for line in path.read_text().splitlines()] == FOUR
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("end", [0, 30, -1])
def test_a_file_that_was_cut_short_has_no_rows(tmp_path, end):
    results = Results(tmp_path)
    path = results.write(small(), "jax", FOUR)
    path.write_text(path.read_text()[:end])
    assert not results.has(small(), "jax")
    results.write(small(), "jax", FOUR)
    assert results.has(small(), "jax")


def test_runs_that_write_the_same_rows_at_once_do_not_mix(tmp_path):
    results = Results(tmp_path)
    path = results.write(small(), "jax", FOUR)
    whole = path.read_text()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(results.write, small(), "jax", FOUR) for _ in range(50)]
        while not all(write.done() for write in writes):
            assert path.read_text() == whole
    assert [write.result() for write in writes] == [path] * 50
    assert [*path.parent.iterdir()] == [path]


def test_what_cannot_be_written_leaves_no_half(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(TypeError):
        results.write(small(), "jax", [{"seed": 0}, {"seed": object()}])
    assert not results.has(small(), "jax")
    path = results.path(small(), "jax")
    path.mkdir(parents=True)
    (path / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        results.write(small(), "jax", [{"seed": 0}])
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_disk_is_found_out_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "wb"))
    with pytest.raises(OSError, match="No space left on device"):
        Results(tmp_path).check()
