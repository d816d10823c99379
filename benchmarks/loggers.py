"""Those that log metrics: how each is opened, told numbers and closed, and how its points are counted.

Each works as its users call it, on files of its own in the working folder: MLflow over sqlite, W&B offline.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import Failed, numbers, say

from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Metrics
from mlwrap._savers.tensorflow.event_files import folder_metrics

HEAD = 'import json, os, sys, time\nSTORE = os.environ["STORE"]\n'
MLFLOW = 'import mlflow\nmlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench"); mlflow.start_run()\n'
EACH = "    for name, value in values.items():\n        "
SOURCES = {
    "mlwrap": """
import mlwrap
context = mlwrap.model_run("r", tracking_uri=STORE, experiment="bench")
run = context.__enter__()
log = lambda values, step: run.log_metrics(values, step=step)
close = lambda: context.__exit__(None, None, None)
""",
    "MLflow, sync": MLFLOW
    + """
log = lambda values, step: mlflow.log_metrics(values, step=step)
close = mlflow.end_run
""",
    "MLflow, async": MLFLOW
    + """
log = lambda values, step: mlflow.log_metrics(values, step=step, synchronous=False)
close = lambda: (mlflow.flush_async_logging(), mlflow.end_run())
""",
    "W&B, offline": """
import wandb
run = wandb.init(mode="offline", project="bench", settings=wandb.Settings(silent=True, console="off"))
log = lambda values, step: run.log(values, step=step)
close = run.finish
""",
    "trackio": """
import contextlib, io, trackio
with contextlib.redirect_stdout(io.StringIO()):
    trackio.init(project="bench")
log = lambda values, step: trackio.log(values)
close = trackio.finish
""",
    "tf.summary": f"""
import tensorflow as tf
writer = tf.summary.create_file_writer("tb")
writer.set_as_default()
def log(values, step):
{EACH}tf.summary.scalar(name, value, step)
close = writer.close
""",
    "tensorboardX": f"""
from tensorboardX import SummaryWriter
writer = SummaryWriter("tb")
def log(values, step):
{EACH}writer.add_scalar(name, value, step)
close = writer.close
""",
    "dvclive": f"""
from dvclive import Live
live = Live("dvclive", save_dvc_exp=False, report=None)
def log(values, step):
{EACH}live.log_metric(name, value, plot=True)
    live.next_step()
close = live.end
""",
}
TRY = 'log({"m": 1.0}, 0)\nclose()\nprint("{}")\n'


def that_work() -> list[str]:
    """The names of those that are installed and work; ours is the first."""
    there = []
    for name, source in SOURCES.items():
        say(f"{name}: does it work?")
        try:
            numbers(HEAD + source + TRY, timeout=120)
        except Failed as error:
            say(f"{name} is not measured: {error}")
        else:
            there.append(name)
    return there


def points(name: str, folder: Path) -> int:
    """How many points a logger's files hold."""
    return _COUNTED[name](folder)


def _mlwrap(folder: Path) -> int:
    """In the journal; or, if it is delivered and gone, in MLflow."""
    journals = list((folder / "spool").glob("*/journal.jsonl"))
    waiting = sum(
        len(record.values)
        for path in journals
        for record, _ in read_records(path)
        if isinstance(record, Metrics)
    )
    return waiting or _mlflow(folder)


def _mlflow(folder: Path) -> int:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return int(store.execute("select count(*) from metrics").fetchone()[0])


def _trackio(folder: Path) -> int:
    found = 0
    for path in (folder / "trackio").glob("*.db"):
        with sqlite3.connect(path) as store:
            found += sum(len(json.loads(text)) for (text,) in store.execute("select metrics from metrics"))
    return found


def _wandb(folder: Path) -> int:
    from wandb.proto import wandb_internal_pb2  # noqa: PLC0415 - only where W&B is installed

    found = 0
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        for data in _leveldb(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            names = [item.key or item.nested_key[0] for item in record.history.item]
            found += sum(not name.startswith("_") for name in names)
    return found


def _leveldb(data: bytes) -> Iterator[bytes]:
    """The whole records of a log as LevelDB writes it, behind W&B's own seven bytes.

    The format: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    block, header = 32768, struct.Struct("<IHB")  # checksum, length, kind
    at, whole = 7, b""
    while at + header.size <= len(data):
        room = block - at % block
        if room < header.size:
            at += room
            continue
        _, length, kind = header.unpack_from(data, at)
        at += header.size
        piece = data[at : at + length]
        if kind == 0 or len(piece) < length:
            return
        at += length
        whole = piece if kind in {1, 2} else whole + piece  # a whole one, or the first piece of one
        if kind in {1, 4}:  # a whole one, or the last piece
            yield whole


def _dvclive(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) - 1 for file in (folder / "dvclive").rglob("*.tsv"))


def _tensorboard(folder: Path) -> int:
    return sum(len(record.values) for record in folder_metrics(folder / "tb"))


_COUNTED: dict[str, Callable[[Path], int]] = {
    "mlwrap": _mlwrap,
    "MLflow, sync": _mlflow,
    "MLflow, async": _mlflow,
    "W&B, offline": _wandb,
    "trackio": _trackio,
    "tf.summary": _tensorboard,
    "tensorboardX": _tensorboard,
    "dvclive": _dvclive,
}
