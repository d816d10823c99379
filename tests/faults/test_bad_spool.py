"""A spool in which something is wrong: the runs beside it are delivered, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import mlwrap
from mlwrap import model_run
from mlwrap._delivery.deliver import deliver
from mlwrap._journal.records import RunStarted
from mlwrap._spool.open_run import open_run
from mlwrap._spool.sender_sockets import connect_socket
from mlwrap.errors import MlwrapWarning
from tests.faults.conftest import senders, until
from tests.spools import folder_of, waiting_in
from tests.users import as_nobody, give_away, let_through, needs_root

AWAY = "http://127.0.0.1:9"


def runs() -> dict[str, Run]:
    """All runs of the store, by name; two of one name are an error."""
    client = mlflow.MlflowClient()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def steps(name: str) -> list[int]:
    """The steps of a run's points, in their order."""
    return [p.step for p in mlflow.MlflowClient().get_metric_history(runs()[name].info.run_id, "loss")]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mlwrap", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "500", **environment},
    )


def wait_in(name: str, **options: object) -> str:
    """A run that waits; gives its key."""
    with model_run(name, delivery="off", **options) as run:
        run.log_metric("loss", 0.5, step=0)
    return run.key


@pytest.fixture
def hanging() -> Iterator[str]:
    """URI of a server that takes every connection and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(100)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_sync_names_what_it_can_not_deliver_and_delivers_the_rest(store: str, spool: Path, hanging: str):
    """Row 70. A journal without a beginning, a deleted experiment, a server that hangs, one that is away."""
    client = mlflow.MlflowClient()
    client.delete_experiment(client.create_experiment("deleted"))
    bad = {
        wait_in("away", tracking_uri=AWAY): "no server listens at 127.0.0.1:9",
        wait_in("hanging", tracking_uri=hanging): "timed out",
        wait_in("deleted", experiment="deleted"): "is deleted. Restore it",
        wait_in("damaged"): "does not begin with a whole record",
        wait_in("newer"): "Upgrade mlwrap",
        wait_in("a link"): "is a link; it was not touched",
    }
    damaged, newer, link = list(bad)[3:]
    (spool / damaged / "journal.jsonl").write_bytes(bytes(1000))
    (spool / newer / "delivered.json").write_text('{"format":99}')
    (spool / link / "delivered.json").symlink_to("/dev/null")
    for number in range(4):
        wait_in(f"healthy{number}")
    done = command("sync", MLFLOW_HTTP_REQUEST_TIMEOUT="3")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.endswith("4 delivered, 6 waiting\n"), done.stdout
    assert {f"healthy{number}" for number in range(4)} == set(runs())
    listed = command("status")
    for key, why in bad.items():
        assert f"it waits in {spool / key}" in done.stdout
        assert why in done.stdout
        (line,) = [line for line in listed.stdout.splitlines() if key in line]
        assert why in line
    assert sorted(path.name for path in waiting_in(spool)) == sorted(bad)


def test_a_store_that_hangs_does_not_keep_the_command(store: str, spool: Path, hanging: str):
    """Row 70. Its run is given up after a time of its own, named with the reason, and the command ends."""
    key = wait_in("hanging", tracking_uri=hanging)
    wait_in("healthy")
    script = (
        "import sys, mlwrap._delivery.backlog as backlog\n"
        f"def patience(folder): return 3.0 if folder.key == {key!r} else 600.0\n"
        "backlog.deliver_backlog.__defaults__ = (patience,)\n"
        "sys.argv = ['mlwrap', 'sync']\n"
        "from mlwrap._cli.commands import main\nmain()\n"
    )
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3600"}
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("1 delivered, 1 waiting\n")
    assert "made no progress" in done.stdout
    assert set(runs()) == {"healthy"}
    listed = command("status").stdout
    assert key in listed
    assert "made no progress" in listed


def test_a_run_whose_store_hangs_holds_up_no_other(script, store: str, hanging: str):
    """Row 70. The sender delivers the next run while the first one's store has not said a word."""
    source = (
        f"with mlwrap.model_run('first', tracking_uri={hanging!r}, wait=False): pass\n"
        "with mlwrap.model_run('second') as run: run.log_metric('loss', 0.5)\n"
        "print(run.run_id, flush=True)\n"
        "os._exit(0)\n"
    )
    process = script(source, MLFLOW_HTTP_REQUEST_TIMEOUT="3600")
    out, err = process.communicate(timeout=280)
    assert (out.strip(), err) == (runs()["second"].info.run_id, "")


def test_a_run_that_can_not_be_delivered_does_not_keep_the_sender(script, store: str, spool: Path):
    """Row 70. What dead processes left is delivered, but for the one that can't be; the sender ends."""
    bad = [RunStarted(key=uuid.uuid4().hex, name="bad", time=1, tracking_uri="nothing://x", folder="/")]
    good = [
        RunStarted(key=uuid.uuid4().hex, name=f"good{n}", time=1, tracking_uri=store, folder="/")
        for n in range(4)
    ]
    spool.mkdir(mode=0o700)
    for first in bad + good:
        open_run(spool, first).release()
    process = script("with mlwrap.model_run('r'): pass\n")
    _, err = process.communicate(timeout=280)
    assert err == ""
    until(lambda: not senders(spool))
    assert {run.info.status for name, run in runs().items() if name != "r"} == {"KILLED"}
    assert set(runs()) == {"r", "good0", "good1", "good2", "good3"}
    assert [path.name for path in waiting_in(spool)] == [bad[0].key]


def test_a_child_does_not_wait_for_its_parents_delivery(store: str):
    """Row 70. Another delivery is at the parent: the child is there without it, and knows it at its end."""
    with model_run("outer", delivery="off") as outer:
        with model_run("inner", delivery="off") as inner:
            inner.log_metric("loss", 0.5)
        child = folder_of(inner)
        with folder_of(outer).delivery_lease():
            deliver(child)
        assert "mlflow.parentRunId" not in runs()["inner"].data.tags
    assert set(runs()) == {"inner"}
    with model_run("outer2", delivery="off") as outer:
        with model_run("inner2", delivery="off") as inner:
            inner.log_metric("loss", 0.5)
            folder = folder_of(inner)
            with folder_of(outer).delivery_lease():
                deliver(folder)
        deliver(folder)
    found = runs()
    assert found["inner2"].data.tags["mlflow.parentRunId"] == found["outer2"].info.run_id
    assert found["outer2"].data.metrics == {}


@pytest.mark.parametrize("parent", ["../../elsewhere", "x", "0" * 31, "/etc"])
def test_a_parent_key_that_is_none_leads_nowhere(store: str, spool: Path, parent: str):
    """Row 75. The journal may say what it likes."""
    first = RunStarted(
        key=uuid.uuid4().hex, name="r", time=1, tracking_uri=store, folder="/", parent_key=parent
    )
    spool.mkdir(mode=0o700)
    open_run(spool, first).release()
    assert [synced.error for synced in mlwrap.sync()] == [None]
    assert "mlflow.parentRunId" not in runs()["r"].data.tags


def test_a_run_folder_that_is_removed_is_said_at_the_next_call(store: str, spool: Path):
    """Row 72. While the run is open, without a sender; its end promises no sync, and is not delivered."""
    with pytest.warns(MlwrapWarning) as warned, model_run("r") as run:
        run.log_metric("loss", 0.5)
        folder_of(run).remove()
        until(lambda: run.log_metric("loss", 0.5) or warned.list)
    assert [str(warning.message) for warning in warned] == [
        f"run 'r': its run folder {spool / run.key} was removed: what MLflow does not have of it is lost."
    ]
    assert run.wait() is False


def test_the_report_of_a_run_that_is_lost_promises_nothing(
    store: str, spool: Path, capfd: pytest.CaptureFixture[str]
):
    """Row 72. Neither that it waits, nor that a command would deliver it."""
    with pytest.warns(MlwrapWarning, match="was removed"), model_run("r", quiet=False) as run:
        folder_of(run).remove()
    err = capfd.readouterr().err
    assert "mlwrap sync" not in err
    assert f"its run folder {spool / run.key} was removed" in err


def test_a_run_folder_that_is_removed_under_a_sender(script, store: str, spool: Path):
    """Row 72. The end of the run does not take it for delivered; the sender goes on with other runs."""
    source = (
        "import shutil\n"
        "with mlwrap.model_run('r') as run:\n"
        "    run.log_metric('loss', 1.0)\n"
        f"    shutil.rmtree({str(spool)!r} + '/' + run.key)\n"
        "print(run.wait(), flush=True)\n"
        "with mlwrap.model_run('next') as run: pass\n"
        "print(run.wait(), flush=True)\n"
    )
    out, err = script(source).communicate(timeout=280)
    assert out.split() == ["False", "True"]
    assert err.count("was removed: what MLflow does not have of it is lost") == 1
    assert "mlwrap sync" not in err
    assert runs()["next"].info.status == "FINISHED"


@pytest.mark.parametrize("damage", ["removed", "empty", "zeroed", "cut", "another type"])
@pytest.mark.parametrize("delivered", [0, 1])
def test_progress_that_is_lost_is_rebuilt(store: str, spool: Path, damage: str, delivered: int):
    """Row 73. By the run's key: one run, each point once; and sync says so where MLflow had something."""
    with model_run("r", delivery="off") as run:
        run.log_metric("loss", 0.5, step=0)
        if delivered:
            deliver(folder_of(run))
        run.log_metric("loss", 0.25, step=1)
    file = spool / run.key / "delivered.json"
    text = file.read_bytes() if delivered else b""
    file.unlink(missing_ok=True)
    if damage != "removed":
        ways = {"empty": b"", "zeroed": bytes(len(text)), "cut": text[:-9], "another type": b'{"offset":"x"}'}
        file.write_bytes(ways[damage])
        assert "delivered.json is damaged" in command("status").stdout
    done = command("sync")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 delivered, 0 waiting\n")
    assert ("was damaged or removed" in done.stdout) == bool(delivered)
    assert steps("r") == [0, 1]
    assert runs()["r"].info.status == "FINISHED"
    assert waiting_in(spool) == []


def test_an_artifact_that_a_later_one_replaced_is_not_called_lost(store: str, spool: Path):
    """Row 73. Its stage is gone, and MLflow has the later text; one that no later one replaced is lost."""
    with model_run("r", delivery="off") as run:
        for number in range(2):
            run.log_text(f"version {number}", "note.txt")
            run.log_text(f"version {number}", f"{number}.txt")
            deliver(folder_of(run))
    (spool / run.key / "delivered.json").unlink()
    client = MlflowClient(store)
    artifacts = Path(runs()["r"].info.artifact_uri.removeprefix("file://"))
    (artifacts / "1.txt").unlink()
    assert command("sync").returncode == 0
    assert client.get_run(runs()["r"].info.run_id).data.tags["mlwrap.refused"] == (
        "the artifact '1.txt': its file is gone from the run folder, so it is lost."
    )
    assert (artifacts / "note.txt").read_text() == "version 1"


def test_an_open_run_whose_progress_is_lost_makes_no_second_run(store: str):
    """Row 73. Whoever delivers it next looks for it first."""
    with model_run("r") as run:
        folder = folder_of(run)
        for step, text in enumerate((None, b"", bytes(50))):
            run.log_metric("loss", 0.5, step=step)
            deliver(folder)
            (folder.path / "delivered.json").unlink()
            if text is not None:
                (folder.path / "delivered.json").write_bytes(text)
    assert steps("r") == [0, 1, 2]


@needs_root
def test_a_folder_that_another_user_planted_is_not_touched(store: str, spool: Path):
    """Row 75. In a spool that all can write to: named by sync and status, never opened, locked or removed."""
    spool.mkdir()
    spool.chmod(0o1777)
    planted = RunStarted(key="b" * 32, name="planted", time=1, tracking_uri=store, folder="/")
    open_run(spool, planted).release()
    give_away(spool / planted.key)
    own = spool / f"user-{os.getuid()}"
    key = wait_in("ours")
    assert (own / key).is_dir()
    before = {path: path.lstat().st_mtime_ns for path in (spool / planted.key).rglob("*")}
    listed = command("status")
    done = command("sync")
    for output in (listed.stdout, done.stdout):
        assert "belongs to another user (uid 65534); it was not touched" in output
    assert done.returncode == 0
    assert done.stdout.endswith("1 delivered, 0 waiting\n")
    cleaned = command("clean", planted.key)
    assert cleaned.returncode == 1
    assert "belongs to another user" in cleaned.stderr
    assert {path: path.lstat().st_mtime_ns for path in (spool / planted.key).rglob("*")} == before
    assert set(runs()) == {"ours"}


def test_junk_on_the_socket_ends_no_sender(script, store: str, spool: Path):
    """Row 76. Whoever sends it is hung up on; the run goes on, and is delivered by the same sender."""
    ready = "print('ready', flush=True); sys.stdin.readline()"
    process = script(f"with mlwrap.model_run('r') as run:\n    run.log_metric('loss', 0.5)\n    {ready}\n")
    assert process.stdout.readline() == "ready\n"
    until(lambda: list(spool.glob("sender-*.sock")))
    (address,) = spool.glob("sender-*.sock")
    (sender,) = senders(spool)
    greeting = {"folder": str(spool / ("c" * 32)), "tracking_uri": store}
    for junk in (
        b"junk\n", b"\n", b"\xff\xfe\n", b"{}\n", b"[" * 5000 + b"\n", b"x" * 1_000_000,
        json.dumps(greeting).encode() + b"\n", json.dumps({**greeting, "folder": "/etc"}).encode() + b"\n",
        json.dumps({**greeting, "folder": "a\0b"}).encode() + b"\n", b'{"folder":1,"tracking_uri":2}\n',
    ):  # fmt: skip
        with connect_socket(address) as connection:
            connection.settimeout(60)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(junk)
                assert connection.recv(1) == b""
    assert sender.is_running()
    _, err = process.communicate("\n", timeout=280)
    assert (process.returncode, err) == (0, "")
    assert runs()["r"].info.status == "FINISHED"


@needs_root
def test_another_users_connection_is_not_served(script, store: str, spool: Path):
    """Row 76. Not even where the socket's mode lets it through."""
    ready = "print('ready', flush=True); sys.stdin.readline()"
    process = script(f"with mlwrap.model_run('r'):\n    {ready}\n")
    assert process.stdout.readline() == "ready\n"
    until(lambda: list(spool.glob("sender-*.sock")))
    (address,) = spool.glob("sender-*.sock")
    assert address.stat().st_mode & 0o777 == 0o600
    let_through(spool)
    address.chmod(0o666)

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            connection.settimeout(60)
            assert connection.recv(1) == b""

    assert as_nobody(connect)
    _, err = process.communicate("\n", timeout=280)
    assert (process.returncode, err) == (0, "")
    assert runs()["r"].info.status == "FINISHED"


def test_all_that_is_made_is_private_whatever_the_umask(script, store: str, spool: Path):
    """Row 76. With a umask of 000 and a sender: folders 0700, files and the socket 0600."""
    source = (
        "os.umask(0)\n"
        "with mlwrap.model_run('first'): pass\n"
        "with mlwrap.model_run('r', params={'long': 'x' * 10_000}) as run:\n"
        "    run.log_metric('loss', 0.5)\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
    )
    process = script(source)
    assert process.stdout.readline() == "ready\n"
    until(lambda: "r" in runs() and list(spool.glob("sender-*.sock")))
    modes = {
        path: path.lstat().st_mode & 0o777
        for path in [spool, *spool.rglob("*")]
        if len(path.relative_to(spool).parts) < 3  # below are the folders of models and artifacts
    }
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    process.communicate("\n", timeout=280)


def test_dead_sockets_are_swept_by_the_commands(store: str, spool: Path):
    """Row 76. What a sender that was killed left."""
    for number, arguments in enumerate((["sync"], ["clean"], ["status"])):
        spool.mkdir(mode=0o700, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(spool / f"sender-{number}-x.sock"))
        assert command(*arguments).returncode == 0
        assert waiting_in(spool) == []
