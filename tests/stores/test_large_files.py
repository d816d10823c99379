"""A large file on S3: what has arrived is never sent again, however often its sender is killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest

import mlwrap
from mlwrap._delivery.publishing import upload_in_parts
from mlwrap._delivery.sync import clean
from mlwrap._mlflow.artifact_stores.s3_parts import S3Parts
from mlwrap.errors import Unreachable
from tests.faults.weights import Weights, register
from tests.spools import waiting_in
from tests.stores.servers import BUCKET, S3_ENVIRONMENT, CountingProxy, s3, s3_client

ROOT = Path(__file__).parents[2]
PART = 1 << 17
# Delivers run folders in children that can be killed. They are made by fork from a process with one thread,
# which has delivered the first folder itself, to another store, so that none of them has to import anything.
VICTIMS = """
import os, sys
from pathlib import Path
import boto3
from mlwrap._delivery.deliver import deliver
from mlwrap._spool.run_folder import RunFolder

deliver(RunFolder(Path(sys.stdin.readline().strip())))
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        deliver(RunFolder(Path(line.strip())))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server, which the uploads of one test are not left in for the next."""
    with s3(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def proxy(
    s3_url: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CountingProxy]:
    """What stands before the S3 server, where the test's own experiment keeps its artifacts."""
    made = CountingProxy(urlsplit(s3_url).port)
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", made.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # boto3's pauses between its tries are for networks
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(PART))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(2 * PART))
    mlflow.create_experiment(tmp_path.name, f"s3://{BUCKET}/{tmp_path.name}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setattr("mlwrap._delivery.deliver._PATIENCE_SECONDS", 0)  # each sync is one try
    yield made
    made.close_all()
    abort_all(s3_url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of twenty parts, the last of them short."""
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(20 * PART - 1000))
    return path


def waiting(file: Path, name: str = "run") -> Path:
    """Log a file in a run that is not delivered; gives its run folder."""
    with mlwrap.model_run(name, delivery="off") as run:
        run.log_artifact(file)
    return Path(os.environ["MLWRAP_SPOOL"]) / run.key


def sync() -> str | None:
    """Deliver the one run that waits; gives what stood in its way."""
    (entry,) = mlwrap.sync()
    return entry.error


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stop(*_: object) -> None:
    """End a delivery here."""
    raise Unreachable("stopped")


def stored(url: str, name: str) -> str:
    """The SHA-256 of the one file of that name that this test has put into the store."""
    client = s3_client(url)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{os.environ['MLFLOW_EXPERIMENT_NAME']}/")
    (key,) = [entry["Key"] for entry in listed["Contents"] if entry["Key"].endswith(f"/{name}")]
    return hashlib.sha256(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()).hexdigest()


def unfinished(url: str) -> list[str]:
    """The names of the uploads that the store keeps parts of."""
    return [
        upload["Key"] for upload in s3_client(url).list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    ]


def abort_all(url: str) -> None:
    """Let the store forget all uploads."""
    for upload in s3_client(url).list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        s3_client(url).abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.more)])
def test_kills_send_at_most_five_percent_more(
    kills: int, proxy: CountingProxy, s3_url: str, tmp_path: Path, empty_store: Path
):
    """Row 88. Each kill loses the part that is on its way, and what is in the store is the file.

    ``python -m tests.stores.large_upload 2000 20`` does the same with a sender, and with parts of 5 MiB.
    """
    spool, path = Path(os.environ["MLWRAP_SPOOL"]), tmp_path / "many.bin"
    # A kill loses one part at most, the first one four: 3.5 %; and 1 kB a request is counted, too.
    size = 40 * kills * PART
    path.write_bytes(os.urandom(PART) * (40 * kills))
    folder = waiting(path)
    script = tmp_path / "victims.py"
    script.write_text(VICTIMS)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as victims:
        shutil.copy(empty_store, tmp_path / "other.db")
        with mlwrap.model_run(
            "first", delivery="off", experiment="other", tracking_uri=f"sqlite:///{tmp_path / 'other.db'}"
        ) as run:
            run.log_metric("loss", 0.0)
        victims.stdin.write(f"{spool / run.key}\n")
        for number in range(kills + 1):
            killed = number < kills

            def kill() -> None:
                os.kill(victim, signal.SIGKILL)  # noqa: B023 - called before the next one is made
                proxy.cut()

            victims.stdin.write(f"{folder}\n")
            victims.stdin.flush()
            victim = int(victims.stdout.readline())
            if killed:
                proxy.then, proxy.at = kill, (number + 1) * size // (kills + 1)
            assert int(victims.stdout.readline()) == (-signal.SIGKILL if killed else 0)
        victims.stdin.close()
    assert size < proxy.sent <= 1.05 * size
    assert stored(s3_url, "many.bin") == hashlib.sha256(path.read_bytes()).hexdigest()
    assert unfinished(s3_url) == []
    assert waiting_in(spool) == []


def test_an_upload_goes_on_after_an_outage(proxy: CountingProxy, s3_url: str, file: Path, spool: Path):
    """Row 88. The store goes away in the middle; the next sync sends the rest."""
    waiting(file)
    proxy.at, proxy.then = file.stat().st_size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    assert unfinished(s3_url) != []
    proxy.listen()
    assert sync() is None
    assert proxy.sent <= file.stat().st_size + 5 * PART  # four were on their way, and the heads of requests
    assert stored(s3_url, "file.bin") == digest(file)
    assert unfinished(s3_url) == []


def test_progress_that_is_lost_finds_the_parts(proxy: CountingProxy, s3_url: str, file: Path, monkeypatch):
    """The store is asked for the upload, and each part in it is compared with the file."""
    folder = waiting(file)
    proxy.at, proxy.then = file.stat().st_size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    (folder / "delivered.json").unlink()
    proxy.listen()
    assert "was damaged or removed" in mlwrap.sync()[0].note
    assert proxy.sent <= file.stat().st_size + 5 * PART  # four were on their way, and the heads of requests
    assert stored(s3_url, "file.bin") == digest(file)


def test_an_upload_that_the_store_has_forgotten_begins_anew(proxy: CountingProxy, s3_url: str, file: Path):
    """As a rule of the bucket does with uploads that are days old."""
    waiting(file)
    proxy.at, proxy.then = file.stat().st_size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    abort_all(s3_url)
    proxy.listen()
    assert sync() is None
    assert stored(s3_url, "file.bin") == digest(file)
    assert unfinished(s3_url) == []


def test_an_upload_that_was_completed_is_not_sent_again(
    proxy: CountingProxy, s3_url: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    """The delivery is interrupted after the store has made the file, before that is noted."""
    waiting(file)
    complete = S3Parts.complete

    def interrupted(*args):
        complete(*args)
        raise Unreachable("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(S3Parts, "complete", interrupted)
        patch.setattr("mlwrap._delivery.deliver._PATIENCE_SECONDS", 0)
        patch.setattr("mlwrap._delivery.publishing.models_and_artifacts._MAX_RETRIES", 0)
        patch.setattr("mlwrap._delivery.deliver._Delivery._publish_thinned", stop)
        assert sync() is not None
    sent = proxy.sent
    assert sync() is None
    assert proxy.sent - sent < PART
    assert stored(s3_url, "file.bin") == digest(file)


def test_a_refused_file_leaves_no_parts(
    proxy: CountingProxy, s3_url: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    """A part that the store refuses for good: what had arrived is removed, the run ends, sync tries again."""
    waiting(file)
    send = S3Parts.send

    def refused(self, path, upload_id, number, data):
        return send(self, path, upload_id, 10_001 if number == 5 else number, data)

    with monkeypatch.context() as patch:
        patch.setattr(S3Parts, "send", refused)
        assert "the artifact store refused" in sync()
    assert unfinished(s3_url) == []
    assert sync() is None
    assert stored(s3_url, "file.bin") == digest(file)


def test_a_file_that_changed_leaves_no_parts(proxy: CountingProxy, s3_url: str, file: Path):
    """A staged file that differs from the logged one is not delivered, and what had arrived is removed."""
    folder = waiting(file)
    proxy.at, proxy.then = file.stat().st_size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    proxy.listen()
    (staged,) = folder.rglob("file.bin")
    staged.write_bytes(b"x" * file.stat().st_size)
    assert "was changed after it had been saved" in sync()
    assert unfinished(s3_url) == []


def test_clean_removes_the_parts(proxy: CountingProxy, s3_url: str, file: Path):
    """``mlwrap clean KEY`` gives a run up, so no one would complete its uploads."""
    folder = waiting(file)
    proxy.at, proxy.then = file.stat().st_size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    proxy.listen()
    assert clean((folder.name,)) == [folder]
    assert unfinished(s3_url) == []


def test_a_model_goes_on_where_it_stopped(
    proxy: CountingProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch, store: str
):
    """A model's large file as well as an artifact; the model is READY once all of it is there."""
    register(monkeypatch)
    size = 20 * PART
    with mlwrap.model_run("m", delivery="off") as run:
        run.log_model(Weights(size))
    proxy.at, proxy.then = size // 2, proxy.close_all
    assert "the artifact store did not answer" in sync()
    proxy.listen()
    assert sync() is None
    assert proxy.sent <= size + 2 * PART
    assert stored(s3_url, "weights") == hashlib.sha256(b"w" * size).hexdigest()
    (model,) = mlflow.MlflowClient().search_logged_models(
        [mlflow.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id]
    )
    assert model.status.value == "READY"
    assert unfinished(s3_url) == []


def test_a_small_file_waits_for_the_store(proxy: CountingProxy, s3_url: str, tmp_path: Path):
    """Row 89. What MLflow's own client uploads is not refused because the store is away."""
    (tmp_path / "small.bin").write_bytes(b"small")
    waiting(tmp_path / "small.bin")
    proxy.close_all()
    assert "the artifact store did not answer" in sync()
    proxy.listen()
    assert sync() is None
    assert stored(s3_url, "small.bin") == hashlib.sha256(b"small").hexdigest()


@pytest.mark.parametrize("size", [10, 4 * PART])
def test_a_bucket_that_does_not_exist_is_named(proxy: CountingProxy, tmp_path: Path, size: int):
    """Row 89. The store's answer says why, and the run has its end."""
    mlflow.create_experiment("elsewhere", "s3://no-such-bucket/x")
    (tmp_path / "file.bin").write_bytes(b"x" * size)
    with mlwrap.model_run("run", delivery="off", experiment="elsewhere") as run:
        run.log_artifact(tmp_path / "file.bin")
    assert "the artifact store refused: " in (why := sync())
    assert "NoSuchBucket" in why
    (there,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("elsewhere").experiment_id])
    assert there.info.status == "FINISHED"
    assert "NoSuchBucket" in there.data.tags["mlwrap.refused"]


def test_parts_in_parallel_grow_with_what_has_arrived(
    proxy: CountingProxy, s3_url: str, file: Path, monkeypatch
):
    """So that a kill loses few parts, and at most a fortieth of what this delivery has sent."""
    monkeypatch.setattr(upload_in_parts, "_FIRST_PARALLEL", 1)
    monkeypatch.setattr(upload_in_parts, "_PARTS_PER_PARALLEL", 4)
    counted, send, lock = [0, 0], S3Parts.send, threading.Lock()

    def counting(*args):
        with lock:
            counted[0] += 1
            counted[1] = max(counted)
        try:
            return send(*args)
        finally:
            with lock:
                counted[0] -= 1

    monkeypatch.setattr(S3Parts, "send", counting)
    waiting(file)
    assert sync() is None
    assert 1 < counted[1] <= 1 + 20 // 4
    assert stored(s3_url, "file.bin") == digest(file)
