"""What goes wrong between a delivery and a real MLflow server, and what is there in the end."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import mlwrap
from mlwrap._delivery.deliver import deliver
from mlwrap._delivery.sync import Synced
from mlwrap._journal.records import Metrics, Saved
from mlwrap._mlflow import experiments
from mlwrap._mlflow.model_files.files import digest
from mlwrap._run.run import recorder_of
from mlwrap.errors import MlwrapWarning
from tests.faults import proxy as how
from tests.faults.conftest import until
from tests.faults.proxy import Asked, Proxy
from tests.faults.servers import Server, free_port
from tests.spools import folder_of

PARAMS = {"units": 64, "text": "grüße 😀", "long": "x" * 7000}
STEPS = 30


class Weights:
    """A model of a few files, which needs no framework."""

    def __init__(self, *files: bytes) -> None:
        self.files = files or (b"a" * 1000, b"b" * 20_000, b"c")


class WeightsSaver:
    """Saves Weights as a file each."""

    name, format, default_name, frameworks = "weights", 1, "weights", ("sys",)

    def matches(self, value):
        return isinstance(value, Weights)

    def metrics(self, value):
        return ()

    def save(self, value, folder, options):
        for number, content in enumerate(value.files):
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / f"{number}.bin").write_bytes(content)
        return Saved(details={"files": len(value.files)})

    def load(self, folder, details, *, into=None, trust=False):
        return Weights(*((folder / "data" / f"{n}.bin").read_bytes() for n in range(details["files"])))


@pytest.fixture(scope="module", autouse=True)
def _saver():
    mlwrap.register_saver(WeightsSaver())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a server that is known to hang; and pauses are short."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def train(uri: str, **options) -> str:
    """A run with some of everything, which waits in the spool; gives its key."""
    experiments._cache.clear()  # so that each delivery makes the same requests
    options = {"delivery": "off", "experiment": "faults", **options}
    with mlwrap.model_run(params=PARAMS, tags={"team": "vision"}, tracking_uri=uri, **options) as run:
        for step in range(STEPS):
            run.log_metrics({"loss": 1 / (step + 1), "odd": math.nan if step == 3 else step}, step=step)
        run.log_text("hello", "notes/note.txt")
        run.log_model(Weights())
        run.set_tags({"phase": "two"})
    return run.key


def found(server: Server, key: str) -> list[Run]:
    """All runs that were made for a key, deleted ones too."""
    client = MlflowClient(server.uri)
    experiments = [e.experiment_id for e in client.search_experiments(ViewType.ALL)]
    return client.search_runs(experiments, f"tags.`mlwrap.key` = '{key}'", ViewType.ALL)


# Versions are of what is imported at the time, which in a process of tests grows; a commit is of the folder
# that the process stands in, where it has no script.
OF_ONE_RUN = {"mlwrap.key", "mlflow.runName", "mlwrap.versions"}


def looks(server: Server, key: str, tmp_path: Path) -> dict:
    """All that the server has of the one run of a key, less what differs from run to run."""
    (run,) = found(server, key)
    client = MlflowClient(server.uri)
    models = [
        m for m in client.search_logged_models([run.info.experiment_id]) if m.source_run_id == run.info.run_id
    ]
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k not in OF_ONE_RUN and "git" not in k},
        "metrics": {
            name: [(p.step, repr(p.value)) for p in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "artifacts": _files(
            mlflow.artifacts.download_artifacts(
                run_id=run.info.run_id, dst_path=str(tmp_path / uuid.uuid4().hex), tracking_uri=server.uri
            )
        ),
        "models": [(m.name, m.status.value, _whole(server, m.model_id, tmp_path)) for m in models],
        # MLflow 3.4 lists no outputs of a run that it has searched for.
        "outputs": len(client.get_run(run.info.run_id).outputs.model_outputs),
    }


def _files(folder: str) -> dict[str, str]:
    paths = [p for p in Path(folder).rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): digest(p) for p in paths}


def _whole(server: Server, model_id: str, tmp_path: Path) -> dict[str, str]:
    """A model's files, by their digest: what its manifest says, and what loads."""
    folder = _download(server, model_id, tmp_path)
    there = _files(folder)
    said = _manifest(folder)
    assert {path: sha256 for path, sha256 in there.items() if path != "MLmodel"} == said
    assert mlwrap.load_model(folder).files == Weights().files
    return said


def _manifest(folder: str | Path) -> dict[str, str]:
    return yaml.safe_load((Path(folder) / "MLmodel").read_text())["flavors"]["mlwrap"]["manifest"]


def _download(server: Server, model_id: str, tmp_path: Path) -> str:
    location = MlflowClient(server.uri).get_logged_model(model_id).artifact_location
    target = tmp_path / uuid.uuid4().hex
    return mlflow.artifacts.download_artifacts(location, dst_path=str(target), tracking_uri=server.uri)


@pytest.fixture(scope="module")
def healthy(on_sqlite: Server, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a run looks like to which nothing happened."""
    folder = tmp_path_factory.mktemp("healthy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLWRAP_QUIET", "1")
        patch.chdir(folder)  # out of the git repository, as the tests are
        key = train(on_sqlite.uri, spool=str(folder / "spool"))
        assert [s.error for s in mlwrap.sync(str(folder / "spool"))] == [None]
    seen = looks(on_sqlite, key, folder)
    assert (seen["status"], seen["outputs"], len(seen["models"])) == ("FINISHED", 1, 1)
    assert seen["metrics"]["odd"][3] == (3, "nan")
    assert len(seen["metrics"]["loss"]) == STEPS
    assert set(seen["artifacts"]) == {"notes/note.txt", "params.json"}
    return seen


@pytest.fixture
def same(on_sqlite: Server, healthy: dict, tmp_path: Path, spool: Path):
    """The run of a key is what a healthy one is, and nothing of it waits any more."""

    def check(key: str) -> None:
        assert looks(on_sqlite, key, tmp_path) == healthy
        assert not (spool / key).exists()

    return check


def synced() -> list[str | None]:
    """What stood in the way of each run that waits."""
    return [entry.error for entry in mlwrap.sync()]


def sync_until_done(tries: int = 60) -> int:
    """Sync until nothing waits; how often that took."""
    for number in range(1, tries + 1):
        if all(entry.error is None for entry in mlwrap.sync()):
            return number
    raise AssertionError(mlwrap.sync())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that fails gives up, so that each sync is one try."""
    monkeypatch.setattr("mlwrap._delivery.deliver._PATIENCE_SECONDS", 0)


def test_on_postgres(on_postgres: Server, healthy: dict, tmp_path: Path):
    """Its store makes no difference to what is there."""
    key = train(on_postgres.uri)
    assert synced() == [None]
    assert looks(on_postgres, key, tmp_path) == healthy


def test_a_nul_in_a_text_on_postgres(on_postgres: Server):
    """The server answers 500 to one, for ever, so it is written out."""
    with mlwrap.model_run(tracking_uri=on_postgres.uri, params={"a": "x\0y"}, delivery="off") as run:
        run.set_tags({"b": "\0"})
    assert synced() == [None]
    (there,) = found(on_postgres, run.key)
    assert there.data.params == {"a": "x\\x00y"}
    assert there.data.tags["b"] == "\\x00"


NO_BACKEND = "<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1></body></html>"
FAULTS = [
    *(how.cut, how.cut_after, how.reply(503), how.reply(200, "<html>sign in")),
    how.reply(404, NO_BACKEND, content_type="text/html"),
]


@pytest.mark.parametrize("number", range(5), ids=["cut", "cut after", "503", "page", "404"])
def test_an_outage_that_begins_at_any_request(number: int, proxy: Proxy, same, impatient):
    """Rows 16, 17, 20, 22, 24. At the start, in the middle, at the end: a sync gives the same run."""
    train(proxy.uri)
    assert synced() == [None]
    requests = len(proxy.asked)
    assert 15 < requests < 45
    for after in range(number, requests, len(FAULTS)):  # each request with one of the faults
        key = train(proxy.uri)
        proxy.rule(FAULTS[number], after=after)
        (error,) = synced()
        assert error is not None
        proxy.heal()
        assert sync_until_done() <= 2  # files that a page was the answer to are found missing, and sent again
        same(key)


def test_a_404_of_a_proxy_does_not_make_mlflow_too_old(proxy: Proxy, same):
    """Row 24. While an ingress has no server behind it, it answers so; the model is delivered later."""
    proxy.rule(how.reply(404, NO_BACKEND, content_type="text/html"), "logged-models|runs/outputs")
    key = train(proxy.uri)
    (error,) = synced()
    assert "is not MLflow's" in error
    assert "Check the tracking URI, its path, and the proxy" in error
    assert "too old" not in error
    proxy.heal()
    assert synced() == [None]
    same(key)


def test_a_tracking_uri_with_a_wrong_path_is_named(on_sqlite: Server):
    """The server itself answers with the page that MLflow 2 gives to what it does not know."""
    train(f"{on_sqlite.uri}/elsewhere")
    (error,) = synced()
    assert f"the answer from {on_sqlite.uri}/elsewhere is not MLflow's" in error
    assert "too old" not in error


@pytest.mark.parametrize(
    "fault", [how.cut, how.cut_after, how.reply(200, "<html>")], ids=["cut", "cut after", "page"]
)
def test_every_request_fails_once(fault, proxy: Proxy, same, impatient):
    """Rows 20, 24. Each first answer is lost, or is somebody else's page; nothing is in it twice."""
    key = train(proxy.uri)
    seen: set[tuple[str, bytes]] = set()

    def first_time(asked: Asked) -> bool:
        what = asked.line, asked.body if asked.method == "POST" else b""
        new = what not in seen
        seen.add(what)
        return new

    proxy.rule(fault, fits=first_time)
    assert sync_until_done() > 5
    same(key)


def test_an_answer_is_lost_and_a_sync_gets_over_it(proxy: Proxy, same):
    """Row 20. One fault is nothing that anybody has to hear of."""
    key = train(proxy.uri)
    proxy.rule(how.cut_after, "runs/create", times=1)
    proxy.rule(how.cut_after, "logged-models$", times=1)
    assert synced() == [None]
    same(key)


def test_bursts_of_500_502_and_503(proxy: Proxy, same, monkeypatch: pytest.MonkeyPatch):
    """Row 22. A third of all requests fail; there are pauses between the tries."""
    monkeypatch.setattr("mlwrap._delivery.backoff.Backoff.FIRST", 0.01)
    key, dice = train(proxy.uri), random.Random(7)
    for status in (500, 502, 503):
        proxy.rule(how.reply(status, "out of order"), fits=lambda _: dice.random() < 0.12)
    sync_until_done()
    same(key)


def test_a_server_that_hangs(proxy: Proxy, same, monkeypatch: pytest.MonkeyPatch):
    """Row 18. It accepts and never answers: one call's time-out and the patience, and no more."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    key = train(proxy.uri)
    proxy.rule(how.hang)
    before, threads = time.monotonic(), threading.active_count()
    (error,) = synced()
    assert "did not answer" in error
    assert time.monotonic() - before < 40
    proxy.heal()
    until(lambda: threading.active_count() <= threads + 1)
    assert synced() == [None]
    same(key)


def test_a_server_that_asks_to_be_left_alone(proxy: Proxy, same):
    """Row 21. 429 with Retry-After: no request within that time."""
    key = train(proxy.uri)
    proxy.rule(how.reply(429, "slowly", retry_after="2"), "log-batch", times=1)
    assert synced() == [None]
    times = [asked.time for asked in proxy.asked]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) >= 2
    same(key)


def test_a_server_that_asks_to_be_left_alone_for_an_hour(proxy: Proxy, same):
    """Row 21. Nobody waits for that: it is said, and sync delivers it later."""
    key = train(proxy.uri)
    proxy.rule(how.reply(429, "slowly", retry_after="3600"))
    before = time.monotonic()
    (error,) = synced()
    assert "429" in error
    assert time.monotonic() - before < 30
    assert len(proxy.asked) == 1
    proxy.heal()
    assert synced() == [None]
    same(key)


@pytest.mark.parametrize("status", [400, 403])
def test_a_user_who_may_not(status: int, proxy: Proxy, same):
    """Row 23. Asked once, said once; the folder waits."""
    key = train(proxy.uri)
    proxy.rule(how.reply(status, '{"error_code": "PERMISSION_DENIED", "message": "not you"}'))
    (error,) = synced()
    assert "not you" in error
    assert len(proxy.asked) == 1
    proxy.heal()
    assert synced() == [None]
    same(key)


def test_credentials_that_are_renewed(proxy: Proxy, same, tmp_path: Path):
    """Row 23. After a 401 they are read again, once for each call."""
    credentials = tmp_path / "home/.mlflow/credentials"
    credentials.parent.mkdir()
    credentials.write_text("[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = old\n")

    def renew(handler, asked: Asked) -> None:
        credentials.write_text(credentials.read_text().replace("old", "new"))
        how.reply(401, "who are you?")(handler, asked)

    key = train(proxy.uri)
    proxy.rule(renew, times=1)
    assert synced() == [None]
    assert "new" in credentials.read_text()
    same(key)


def test_credentials_that_are_wrong(proxy: Proxy):
    """Row 23. 401 again: no third time."""
    train(proxy.uri)
    proxy.rule(how.reply(401, "who are you?"))
    (error,) = synced()
    assert "401" in error
    assert len(proxy.asked) == 2


def test_requests_that_are_too_large(proxy: Proxy, same):
    """Row 23. 413: the batch is sent in smaller ones."""
    key = train(proxy.uri)
    proxy.rule(how.reply(413, "too large"), "log-batch", fits=lambda asked: len(asked.body) > 2000)
    error = synced()
    (run,) = found(Server(proxy.behind, "", Path()), key)
    # The parameter of 6000 characters does not fit into any request: it alone is missing, and named.
    assert error == [None]
    assert set(run.data.params) == {"units", "text"}
    assert "parameter 'long'" in run.data.tags["mlwrap.refused"]
    assert (
        len(MlflowClient(f"http://127.0.0.1:{proxy.behind}").get_metric_history(run.info.run_id, "loss"))
        == STEPS
    )


def test_a_model_that_is_too_large(proxy: Proxy, same, on_sqlite: Server):
    """Row 23. A file that the server refuses: the rest of the run is there, the model waits."""
    key = train(proxy.uri)
    proxy.rule(how.reply(413, "too large"), "PUT .*1.bin")
    (error,) = synced()
    assert "413" in error
    assert "the model 'weights'" in error
    (run,) = found(on_sqlite, key)
    assert run.info.status == "FINISHED"
    assert len(proxy.lines("PUT .*MLmodel")) == 0
    proxy.heal()
    assert synced() == [None]
    same(key)


def test_one_bad_key_in_a_batch(proxy: Proxy, on_sqlite: Server):
    """Row 29. It alone is missing, with the reason, and finding it takes few requests."""
    with mlwrap.model_run(tracking_uri=proxy.uri, delivery="off") as run:
        for step in range(400):
            run.log_metric("loss", step, step=step)
        for step in (2**63, 2**64 - 1):  # more than a step can be, past the door
            recorder_of(run).append(Metrics.of({"much": 1.0}, step=step, time=1))
        for name in ("bad#key", "../x"):  # past the door that would rename them
            recorder_of(run).append(Metrics.of({name: 1.0}, step=0, time=1))
        for step in range(400, 800):
            run.log_metric("loss", step, step=step)
    assert synced() == [None]
    (there,) = found(on_sqlite, run.key)
    history = MlflowClient(on_sqlite.uri).get_metric_history(there.info.run_id, "loss")
    assert [p.step for p in history] == list(range(800))
    assert set(there.data.metrics) == {"loss"}
    for name in ("bad#key", "../x", "much"):
        assert f"metric {name!r}" in there.data.tags["mlwrap.refused"]
    assert len(proxy.lines("log-batch")) < 60


def test_a_parameter_that_somebody_else_has_set(proxy: Proxy, on_sqlite: Server):
    """Row 29. MLflow does not change it: the other parameters arrive, and it is named."""
    with mlwrap.model_run(tracking_uri=proxy.uri, delivery="off") as run:
        run_id = deliver(folder_of(run)).run_id
        MlflowClient(on_sqlite.uri).log_param(run_id, "units", "32")
        run.log_params({"units": 64, "rate": 0.1})
    assert synced() == [None]
    (there,) = found(on_sqlite, run.key)
    assert there.data.params == {"units": "32", "rate": "0.1"}
    assert "parameter 'units'" in there.data.tags["mlwrap.refused"]


def test_numbers_that_are_not_finite(proxy: Proxy, on_sqlite: Server):
    """Row 30. NaN stays NaN; infinities come back as the greatest numbers, as MLflow keeps them."""
    with mlwrap.model_run(tracking_uri=proxy.uri, delivery="off") as run:
        run.log_metrics({"nan": math.nan, "inf": math.inf, "minus": -math.inf, "yes": True})
    assert synced() == [None]
    (there,) = found(on_sqlite, run.key)
    metrics = there.data.metrics
    assert math.isnan(metrics.pop("nan"))
    assert metrics == {"inf": sys.float_info.max, "minus": -sys.float_info.max, "yes": 1.0}


def test_very_many_metrics_and_params(proxy: Proxy, on_sqlite: Server):
    """Row 33. Each in as few requests as MLflow's limits allow."""
    params = {f"p{n}": n for n in range(5000)}
    with mlwrap.model_run(tracking_uri=proxy.uri, params=params, delivery="off") as run:
        run.log_metrics({f"m{n}": n for n in range(1100)}, step=1)
    assert synced() == [None]
    (there,) = found(on_sqlite, run.key)
    assert len(there.data.params) == 5000
    assert there.data.metrics == {f"m{n}": float(n) for n in range(1100)}
    assert len(proxy.lines("log-batch")) <= 53


def test_a_run_that_was_deleted(proxy: Proxy, on_sqlite: Server, spool: Path, same):
    """Row 26. What to do is said, nothing more is sent, the folder is kept; restored, all arrives."""
    key = train(proxy.uri)
    proxy.rule(how.reply(403, "no"), "log-batch", times=1)
    assert synced() != [None]
    (run,) = found(on_sqlite, key)
    MlflowClient(on_sqlite.uri).delete_run(run.info.run_id)
    proxy.asked.clear()
    (error,) = synced()
    assert "was deleted, so nothing more is sent. Restore it (mlflow runs restore)" in error
    assert len(proxy.asked) <= 3
    assert proxy.lines("PUT|create|logged-models") == []
    assert (spool / key / "journal.jsonl").exists()
    MlflowClient(on_sqlite.uri).restore_run(run.info.run_id)
    assert synced() == [None]
    same(key)


def test_an_experiment_that_was_deleted(proxy: Proxy, on_sqlite: Server, spool: Path):
    """Row 26. Before the run was made, and after."""
    client, name = MlflowClient(on_sqlite.uri), uuid.uuid4().hex
    gone = client.create_experiment(name)
    client.delete_experiment(gone)
    key = train(proxy.uri, experiment=name)
    (error,) = synced()
    assert f"the experiment {name!r}" in error
    assert "Restore it (mlflow experiments restore)" in error
    client.restore_experiment(gone)
    proxy.rule(how.reply(403, "no"), "log-batch", times=1)
    assert synced() != [None]
    client.delete_experiment(gone)
    (error,) = synced()
    assert "was deleted" in error
    assert (spool / key / "journal.jsonl").exists()
    client.restore_experiment(gone)
    assert synced() == [None]
    (run,) = found(on_sqlite, key)
    assert run.info.status == "FINISHED"


def test_a_run_that_somebody_else_has_finished(proxy: Proxy, on_sqlite: Server):
    """Row 27. It is not opened again; our end, when it comes, says how the training ended."""
    client, seen = MlflowClient(on_sqlite.uri), []
    context = mlwrap.model_run(tracking_uri=proxy.uri, delivery="off")
    with pytest.raises(ZeroDivisionError), context as run:
        run.log_metric("loss", 1.0, step=0)
        run_id = deliver(folder_of(run)).run_id
        client.set_terminated(run_id, "FINISHED")
        run.log_metric("loss", 2.0, step=1)
        deliver(folder_of(run))
        seen.append(client.get_run(run_id).info.status)
        raise ZeroDivisionError
    assert synced() == [None]
    assert seen == ["FINISHED"]
    assert client.get_run(run_id).info.status == "FAILED"
    assert [p.value for p in client.get_metric_history(run_id, "loss")] == [1.0, 2.0]
    assert not any(b"RUNNING" in asked.body for asked in proxy.asked if "update" in asked.path)


@pytest.mark.parametrize("direct", [False, True], ids=["server", "direct"])
def test_a_store_that_is_locked(direct: bool, on_sqlite: Server, same, store: str):
    """Row 28. Another writer holds sqlite's lock for longer than a call waits for it."""
    database = on_sqlite.backend.removeprefix("sqlite:///")
    # The server keeps the artifacts of its experiments where only its clients can send them.
    key = train(on_sqlite.backend, experiment="direct") if direct else train(on_sqlite.uri)
    writer = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(7, lambda: writer.execute("ROLLBACK"))
    release.start()
    sync_until_done()
    release.join()
    if direct:
        (run,) = found(on_sqlite, key)
        assert run.info.status == "FINISHED"
        assert len(MlflowClient(on_sqlite.uri).get_metric_history(run.info.run_id, "loss")) == STEPS
    else:
        same(key)


def test_a_store_without_room(on_sqlite: Server, proxy: Proxy, tmp_path: Path, impatient):
    """Row 36. The model stays PENDING, with no MLmodel, until there is room."""
    name = uuid.uuid4().hex
    small = on_sqlite.artifacts / name
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small filesystem can't be mounted here")
    try:
        MlflowClient(on_sqlite.uri).create_experiment(name, f"mlflow-artifacts:/{name}")
        with mlwrap.model_run(tracking_uri=proxy.uri, experiment=name, delivery="off") as run:
            run.log_model(Weights(os.urandom(200_000), b"b"))
        (error,) = synced()
        assert error is not None
        (there,) = found(on_sqlite, run.key)
        client = MlflowClient(on_sqlite.uri)
        (model,) = client.search_logged_models([there.info.experiment_id])
        assert model.status.value == "PENDING"
        assert proxy.lines("PUT .*MLmodel") == []
        subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
        assert synced() == [None]
        assert client.get_logged_model(model.model_id).status.value == "READY"
        folder = Path(_download(on_sqlite, model.model_id, tmp_path))
        for path, sha256 in _manifest(folder).items():
            assert digest(folder / path) == sha256
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_the_requests_of_a_run_with_a_model(proxy: Proxy, on_sqlite: Server):
    """A thousand steps and a model: each thing is said once, and nothing is asked that is known."""
    name = uuid.uuid4().hex
    MlflowClient(on_sqlite.uri).create_experiment(name)
    options = {"tracking_uri": proxy.uri, "experiment": name, "delivery": "off"}
    with mlwrap.model_run(params={"a": 1}, **options) as run:
        for step in range(1000):
            run.log_metric("loss", step / 7, step=step)
        run.log_model(Weights(b"one file, as of Keras"))
    assert synced() == [None]
    # MLflow 3.18 asks what the server can do, too.
    assert len(proxy.lines("^(?!.*server-info)")) <= 15
    assert len(proxy.lines("PUT ")) == 5  # the model, three files on its environment, MLmodel
    assert len(proxy.lines("log-batch")) == 2
    # The experiment; what has arrived, in two folders.
    assert len(proxy.lines("GET (?!.*server-info)")) == 3
    assert proxy.lines("get-history|runs/get") == []


def texts_logged(proxy: Proxy) -> str:
    """The key of a run with twenty texts, between which it has metrics, too; it waits in the spool."""
    with mlwrap.model_run("r", experiment="texts", tracking_uri=proxy.uri, delivery="off") as run:
        for number in range(20):
            run.log_text(f"text {number}", f"{number}.txt")
            run.log_metric("loss", number, step=number)
    return run.key


def test_many_artifacts_take_a_request_each_and_one_to_look(proxy: Proxy, on_sqlite: Server):
    """Several at a time; that the run was created says where they go."""
    key = texts_logged(proxy)
    assert synced() == [None]
    assert len(proxy.lines("PUT ")) == 20
    assert len(proxy.lines("GET .*artifacts")) == 1
    assert proxy.lines("runs/get|logged-models") == []
    (run,) = found(on_sqlite, key)
    client = MlflowClient(on_sqlite.uri)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {f"{n}.txt" for n in range(20)}
    assert (
        mlflow.artifacts.load_text(
            f"{on_sqlite.artifacts}/{run.info.experiment_id}/{run.info.run_id}/artifacts/7.txt"
        )
        == "text 7"
    )
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 20


def test_an_upload_of_artifacts_goes_on_where_it_stopped(proxy: Proxy, on_sqlite: Server, impatient):
    """What has arrived is not sent again, and is compared with what was sent all the same."""
    key = texts_logged(proxy)
    proxy.rule(how.cut, "PUT ", after=9)
    assert synced() != [None]
    proxy.heal()
    arrived = 9
    assert sync_until_done() >= 1
    (run,) = found(on_sqlite, key)
    assert run.info.status == "FINISHED"
    sent = [line for asked in proxy.asked if (line := asked.line).startswith("PUT ")]
    assert len(set(sent)) == 20
    assert sum(sent.count(line) == 1 for line in set(sent)) >= arrived


def test_an_upload_goes_on_where_it_stopped(proxy: Proxy, same, impatient):
    """Row 9. Each file is sent once, but for the one that was refused; MLmodel is the last."""
    key = train(proxy.uri)
    proxy.rule(how.reply(503), "PUT .*/2.bin", times=1)
    assert synced() != [None]
    assert synced() == [None]
    puts = [line.rpartition("/artifacts/")[2] for line in proxy.lines("PUT .*models/")]
    assert len(puts) == len(set(puts)) + 1
    assert puts[-1] == "MLmodel"
    same(key)


def test_a_delivery_that_is_killed_between_two_files(proxy: Proxy, same, spool: Path):
    """Row 9. Kill -9 while the second file is on its way: the next sync sends what is missing."""
    key = train(proxy.uri)
    held = threading.Event()

    def hold(handler, asked: Asked) -> None:
        held.set()
        how.hang(handler, asked)

    proxy.rule(hold, "PUT .*/1.bin")
    process = subprocess.Popen([sys.executable, "-m", "mlwrap", "sync"], env={**os.environ})
    assert held.wait(120)
    until(lambda: "0.bin" in (spool / key / "delivered.json").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    proxy.heal()
    assert synced() == [None]
    assert len(proxy.lines("PUT .*/0.bin")) == 1
    assert proxy.lines("PUT .*models/")[-1].endswith("/MLmodel")
    same(key)


def test_a_sync_of_what_is_delivered(proxy: Proxy, same):
    """Row 65. The second one sends nothing."""
    key = train(proxy.uri)
    assert synced() == [None]
    proxy.asked.clear()
    assert synced() == []
    assert proxy.asked == []
    same(key)


def test_two_syncs_at_once(proxy: Proxy, same):
    """Row 65. One delivers; the other waits, or says that somebody is at it; nothing is in it twice."""
    keys = [train(proxy.uri) for _ in range(3)]
    proxy.rule(how.slow(0.05))
    results: list[list[Synced]] = []
    both = [threading.Thread(target=lambda: results.append(mlwrap.sync())) for _ in range(2)]
    for thread in both:
        thread.start()
    other = subprocess.run(
        [sys.executable, "-m", "mlwrap", "sync"], capture_output=True, text=True, check=False
    )
    for thread in both:
        thread.join()
    assert other.returncode in {0, 1}, other.stderr
    proxy.heal()
    sync_until_done()
    for key in keys:
        same(key)


def test_the_users_exception_leaves_while_the_server_is_away(on_sqlite: Server, spool: Path):
    """Row 16. Not ours, not MLflow's; what was logged waits."""
    uri = f"http://127.0.0.1:{free_port()}"
    words = "no server listens at 127.0.0.1"
    with (
        pytest.warns(MlwrapWarning, match=words),
        pytest.raises(ZeroDivisionError),
        mlwrap.model_run(tracking_uri=uri) as run,
    ):
        raise ZeroDivisionError
    assert (spool / run.key / "journal.jsonl").exists()
