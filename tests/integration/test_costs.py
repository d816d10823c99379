"""What a model costs, counted: requests, bytes, processes. Times are for the benchmarks."""

from __future__ import annotations

from pathlib import Path

import keras
import mlflow
import pytest

import mlwrap

MEGABYTE = 1 << 20


def written_and_read() -> tuple[int, int]:
    """Bytes that this process has asked the kernel to write and to read, to and from anywhere."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"]), int(counts["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count bytes")
def test_a_large_keras_model_is_written_once_and_read_twice(store: str):
    """For its checksum when it has been saved, and where it becomes the file that loaders want."""
    model = keras.Sequential([keras.Input((2000,)), keras.layers.Dense(4000)])
    size = model.count_params() * 4
    assert size > 30 * MEGABYTE
    with mlwrap.model_run("small") as run:  # what is loaded late is loaded
        run.log_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    before = written_and_read()
    with mlwrap.model_run("large") as run:
        run.log_model(model)
    written, read = (now - then for now, then in zip(written_and_read(), before, strict=True))
    assert run.models[0].status == "READY"
    assert written < 1.1 * size
    assert read < 2.1 * size
    loaded = mlflow.keras.load_model(run.models[0].uri)
    assert (loaded.weights[0].numpy() == model.weights[0].numpy()).all()


def test_a_model_starts_no_process(store: str, python):
    """Neither saving nor logging: not for requirements, and not for the environment's files."""
    done = python(
        """
import sys, mlwrap, keras
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
started = []
def hook(event, arguments):
    if event in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}:
        started.append((event, arguments))
with mlwrap.model_run("r", delivery="off") as run:
    sys.addaudithook(hook)
    run.log_model(model)
print([synced.error for synced in mlwrap.sync()], started)
"""
    )
    assert done.stdout == "[None] []\n"
