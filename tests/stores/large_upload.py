"""``python -m tests.stores.large_upload MEGABYTES KILLS``: kill the sender while it uploads a file to S3.

A training logs the file and goes on; its next call starts another sender in place of one that was killed.
This says how many bytes were sent, and compares the file in the store with the one that was logged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults.conftest import senders
from tests.stores.servers import BUCKET, S3_ENVIRONMENT, CountingProxy, s3, s3_client

TRAINING = """
import select, sys, mlwrap
with mlwrap.model_run("large") as run:
    run.log_artifact(sys.argv[1])
    step = 0
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        run.log_metric("step", step, step=step)
        step += 1
"""


def main(megabytes: int, kills: int) -> None:
    """Do it, and print what was seen."""
    folder = Path(tempfile.mkdtemp(prefix="mlwrap-large-"))
    try:
        with s3(folder) as url:
            _run(folder, url, megabytes * 1_000_000, kills)
    finally:
        for sender in senders(folder / "spool"):
            sender.send_signal(signal.SIGKILL)
        shutil.rmtree(folder)


def _run(folder: Path, url: str, size: int, kills: int) -> None:
    file, spool, proxy = folder / "large.bin", folder / "spool", CountingProxy(urlsplit(url).port)
    digest = _write(file, size)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    environment = {
        **os.environ,
        **S3_ENVIRONMENT,
        "MLFLOW_S3_ENDPOINT_URL": proxy.url,
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_EXPERIMENT_NAME": "large",
        "MLWRAP_SPOOL": str(spool),
        "MLWRAP_DEADLINE": "600",
        "MLWRAP_LINGER": "0",
    }
    from mlflow import MlflowClient  # noqa: PLC0415 - after the arguments are read

    client = MlflowClient(uri)
    client.create_experiment("large", f"s3://{BUCKET}/large")
    killed: list[int] = []

    def kill() -> None:
        for sender in senders(spool):
            sender.send_signal(signal.SIGKILL)
            killed.append(sender.pid)
        if len(killed) < kills:
            proxy.at = (len(killed) + 1) * size // (kills + 1)

    proxy.then, proxy.at = kill, size // (kills + 1)
    began = time.monotonic()
    command = [sys.executable, "-c", TRAINING, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, cwd=folder, text=True) as training:
        while len(killed) < kills:
            time.sleep(0.1)
        training.communicate("\n")
    seconds = time.monotonic() - began
    (run,) = client.search_runs([client.get_experiment_by_name("large").experiment_id])
    stored = hashlib.sha256()
    key = f"{urlsplit(run.info.artifact_uri).path.removeprefix('/')}/large.bin"
    for chunk in s3_client(url).get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(1 << 20):
        stored.update(chunk)
    unfinished = s3_client(url).list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    print(
        f"{size:,} bytes, {len(set(killed))} senders killed, {run.info.status} after {seconds:.0f} s: "
        f"{proxy.sent:,} bytes sent, {proxy.sent / size:.4f} of the file; the file in the store is "
        f"{'the one' if stored.hexdigest() == digest else 'NOT the one'} that was logged; "
        f"unfinished uploads in the store: {len(list(unfinished))}"
    )


def _write(file: Path, size: int) -> str:
    """Write a file that no part of is like another; gives its SHA-256."""
    digest, left = hashlib.sha256(), size
    with file.open("wb") as stream:
        while left:
            chunk = os.urandom(min(left, 1 << 24))
            stream.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
