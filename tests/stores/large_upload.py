"""``python -m tests.stores.large_upload MEGABYTES KILLS``: kill the sender while it uploads a file to S3.

A training logs the file and ends; after each kill another run starts a sender, which delivers what the one
before it has left. This says how many bytes were sent, and compares the file in the store with the one that
was logged.
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

from tests.faults.conftest import senders, until
from tests.spools import waiting_in
from tests.stores.servers import BUCKET, S3_ENVIRONMENT, CountingProxy, s3, s3_client

TRAINING = """
import os, sys, mlwrap
with mlwrap.model_run("large" if sys.argv[1:] else "next", wait=False) as run:
    for file in sys.argv[1:]:
        run.log_artifact(file)
os._exit(0)  # else the process waits for its runs
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
        "MLWRAP_QUIET": "1",
        "MLWRAP_LINGER": "0",
    }
    from mlflow import MlflowClient  # noqa: PLC0415 - after the arguments are read

    client = MlflowClient(uri)
    client.create_experiment("large", f"s3://{BUCKET}/large")
    killed: list[int] = []

    def kill() -> None:
        for sender in senders(spool):
            sender.send_signal(signal.SIGKILL)
        proxy.cut()
        killed.append(proxy.sent)

    began = time.monotonic()
    for number in range(kills + 1):
        if number < kills:
            proxy.then, proxy.at = kill, (number + 1) * size // (kills + 1)
        command = [sys.executable, "-c", TRAINING, *([str(file)] if number == 0 else [])]
        subprocess.run(command, env=environment, cwd=folder, check=True)
        until(lambda: len(killed) > number or not waiting_in(spool), seconds=600)  # noqa: B023 - called here
    seconds = time.monotonic() - began
    experiment = client.get_experiment_by_name("large").experiment_id
    (run,) = client.search_runs([experiment], "attributes.run_name = 'large'")
    stored = hashlib.sha256()
    key = f"{urlsplit(run.info.artifact_uri).path.removeprefix('/')}/large.bin"
    for chunk in s3_client(url).get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(1 << 20):
        stored.update(chunk)
    unfinished = s3_client(url).list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    print(
        f"{size:,} bytes, {len(killed)} senders killed, {run.info.status} after {seconds:.0f} s: "
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
