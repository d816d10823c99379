"""A sender and a real MLflow server that fails: training does not notice, and all of it arrives."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import mlwrap
from mlwrap._journal.records import RunEnded, RunStarted
from mlwrap._sender.abandoned import AbandonedRuns
from mlwrap._spool.open_run import open_run
from mlwrap._spool.spool import spool_root
from tests.faults import proxy as how
from tests.faults.conftest import senders, until
from tests.faults.proxy import Proxy
from tests.faults.servers import Server
from tests.spools import waiting_in

LOOP = """
body = time.monotonic()
with mlwrap.model_run({name!r}, tracking_uri={uri!r}, experiment="faults") as run:
    for step in range({steps}):
        run.log_metric("loss", step / 7, step=step)
        {each}
    body = time.monotonic() - body
    {end}
print("left", body, flush=True)
"""


def training(proxy: Proxy, name: str, *, steps: int = 500, each: str = "pass", end: str = "pass") -> str:
    """A training script."""
    return LOOP.format(name=name, uri=proxy.uri, steps=steps, each=each, end=end)


READY = "print('ready', flush=True); sys.stdin.readline()"


def run(server: Server, name: str) -> Run | None:
    """The only run of that name, if there is one."""
    client = MlflowClient(server.uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    assert len(found) <= 1
    return found[0] if found else None


def status(server: Server, name: str) -> str | None:
    """Its status."""
    there = run(server, name)
    return there.info.status if there else None


def steps(server: Server, name: str) -> list[int]:
    """The steps of its points."""
    there = run(server, name)
    return (
        [p.step for p in MlflowClient(server.uri).get_metric_history(there.info.run_id, "loss")]
        if there
        else []
    )


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A run's name that no other test has."""
    return request.node.name


def test_a_server_that_is_away_at_the_start_and_comes(script, proxy: Proxy, on_sqlite: Server, name: str):
    """Rows 16, 17. The loop goes on; when the server is there, so is the run, with nobody doing anything."""
    proxy.refuse()
    process = script(training(proxy, name, each="time.sleep(0.01)", end=READY))
    assert process.stdout.readline() == "ready\n"
    proxy.accept()
    until(lambda: len(steps(on_sqlite, name)) == 500)
    assert status(on_sqlite, name) == "RUNNING"
    _, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0, err
    assert status(on_sqlite, name) == "FINISHED"


def test_a_server_that_goes_and_does_not_come_back(
    script, proxy: Proxy, on_sqlite: Server, name: str, spool: Path
):
    """Rows 16, 67. Leaving is bounded, the sender ends, and sync gives the same run."""
    process = script(training(proxy, name, end=READY), MLWRAP_DEADLINE="2")
    assert process.stdout.readline() == "ready\n"
    until(lambda: len(steps(on_sqlite, name)) == 500)
    proxy.refuse()
    _, err = process.communicate("\n", timeout=60)
    assert "'mlwrap sync' delivers it" in err
    until(lambda: not senders(spool))
    assert status(on_sqlite, name) == "RUNNING"
    proxy.accept()
    assert [s.error for s in mlwrap.sync()] == [None]
    assert status(on_sqlite, name) == "FINISHED"
    assert steps(on_sqlite, name) == list(range(500))


def test_a_server_that_hangs_does_not_keep_a_training(
    script, proxy: Proxy, on_sqlite: Server, name: str, spool: Path
):
    """Row 18. Leaving waits for the deadline and not for the call; threads do not pile up in the sender."""
    proxy.rule(how.hang)
    source = training(proxy, name, end=READY)
    process = script(source, MLWRAP_DEADLINE="2", MLFLOW_HTTP_REQUEST_TIMEOUT="5")
    assert process.stdout.readline() == "ready\n"
    until(lambda: len(proxy.asked) >= 3)
    (sender,) = senders(spool)
    assert sender.num_threads() < 30
    _, err = process.communicate("\n", timeout=60)
    assert "'mlwrap sync' delivers it" in err
    until(lambda: not senders(spool))
    proxy.heal()
    assert [s.error for s in mlwrap.sync()] == [None]
    assert steps(on_sqlite, name) == list(range(500))


def test_a_slow_server(script, proxy: Proxy, on_sqlite: Server, name: str):
    """Row 19. The loop runs as without one, and batches grow instead of requests."""
    proxy.rule(how.slow(0.5, bytes_per_second=100_000))
    process = script(training(proxy, name, steps=20_000), MLWRAP_DEADLINE="60")
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert float(out.split()[1]) < 10
    assert steps(on_sqlite, name) == list(range(20_000))
    assert len(proxy.lines("log-batch")) < 35


def test_a_training_that_ends_while_its_files_are_uploaded(
    script, proxy: Proxy, on_sqlite: Server, name: str, tmp_path: Path
):
    """Row 67. It does not wait longer than the deadline; the sender goes on to the end."""
    (tmp_path / "big").mkdir()
    for number in range(8):
        (tmp_path / "big" / f"{number}.bin").write_bytes(b"x" * 10_000)
    proxy.rule(how.slow(4), "PUT")
    source = training(proxy, name, end=f"run.log_artifact({str(tmp_path / 'big')!r})")
    process = script(source, MLWRAP_DEADLINE="2")
    _, err = process.communicate(timeout=120)
    assert "'mlwrap sync' delivers it" in err
    until(lambda: status(on_sqlite, name) == "FINISHED", seconds=120)
    client = MlflowClient(on_sqlite.uri)
    assert len(client.list_artifacts(run(on_sqlite, name).info.run_id, "big")) == 8
    until(lambda: waiting_in(tmp_path / "spool") == [])


UPLOADS = """
import threading
def train(number):
    with mlwrap.model_run("{name}-large", tracking_uri={uri!r}, experiment="faults") as run:
        run.log_text("x", "large.txt")
threads = [threading.Thread(target=train, args=(number,)) for number in range(20)]
for thread in threads:
    thread.start()
sys.stdin.readline()
"""


def test_uploads_that_take_long_hold_up_no_other_run(script, proxy: Proxy, on_sqlite: Server, name: str):
    """Twenty files are on their way to the server; a run without one is closed before any of them arrives."""
    arrives = threading.Event()
    proxy.rule(how.keep(arrives), "PUT .*large")
    large = script(UPLOADS.format(name=name, uri=proxy.uri), MLWRAP_DEADLINE="300")
    until(lambda: len(proxy.lines("PUT .*large")) == 20, 120)
    small = script(training(proxy, name), MLWRAP_DEADLINE="120")
    _, err = small.communicate(timeout=180)
    assert "mlwrap sync" not in err
    assert status(on_sqlite, name) == "FINISHED"
    assert not arrives.is_set()
    arrives.set()
    large.communicate("\n", timeout=180)
    client = MlflowClient(on_sqlite.uri)
    experiment = client.get_experiment_by_name("faults").experiment_id
    found = client.search_runs([experiment], f"attributes.run_name = '{name}-large'")
    assert [run.info.status for run in found] == ["FINISHED"] * 20


def test_a_server_that_asks_to_be_left_alone(script, proxy: Proxy, on_sqlite: Server, name: str):
    """Row 21. Records that come do not wake the sender before the time; a run elsewhere is not kept."""
    other = Proxy(on_sqlite.port)
    proxy.rule(how.reply(429, "slowly", retry_after="6"), times=1)
    elsewhere = (
        "import threading\n"
        "def elsewhere():\n"
        f"    with mlwrap.model_run('{name}-other', tracking_uri={other.uri!r}, experiment='faults') as run:\n"  # noqa: E501
        "        run.log_metric('loss', 0.0, step=0)\n"
        "threading.Thread(target=elsewhere).start()\n"
    )
    process = script(elsewhere + training(proxy, name, each="time.sleep(0.02)", end=READY))
    assert process.stdout.readline() == "ready\n"
    until(lambda: len(proxy.asked) > 1)
    assert proxy.asked[1].time - proxy.asked[0].time >= 6
    assert status(on_sqlite, name + "-other") == "FINISHED"
    other.refuse()
    _, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0, err
    assert steps(on_sqlite, name) == list(range(500))


def test_a_run_that_was_deleted_while_it_goes_on(
    script, proxy: Proxy, on_sqlite: Server, name: str, spool: Path
):
    """Row 26. The sender stops sending; at the end the training hears what to do."""
    each = (
        "step in (50, 250) and (print('ready', flush=True), sys.stdin.readline()); "
        "step > 250 and time.sleep(0.03)"  # longer than any pause between two deliveries
    )
    process = script(training(proxy, name, each=each, end=READY))
    assert process.stdout.readline() == "ready\n"
    until(lambda: len(steps(on_sqlite, name)) == 51)
    there = run(on_sqlite, name)
    MlflowClient(on_sqlite.uri).delete_run(there.info.run_id)
    proxy.asked.clear()
    for _ in range(2):  # on to step 250, where it waits until the sender was refused; then to the end
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        until(lambda: proxy.asked)
    assert len(proxy.asked) <= 3
    _, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0
    assert "was deleted, so nothing more is sent. Restore it" in err
    assert len(list(spool.glob("*/journal.jsonl"))) == 1
    MlflowClient(on_sqlite.uri).restore_run(there.info.run_id)
    assert [s.error for s in mlwrap.sync()] == [None]
    assert steps(on_sqlite, name) == list(range(500))
    assert status(on_sqlite, name) == "FINISHED"


def test_sync_beside_a_sender(script, proxy: Proxy, on_sqlite: Server, name: str):
    """Row 65. A run that is still written is left to its sender."""
    process = script(training(proxy, name, end=READY))
    assert process.stdout.readline() == "ready\n"
    assert mlwrap.sync() == []
    _, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0, err
    assert mlwrap.sync() == []
    assert steps(on_sqlite, name) == list(range(500))


def test_a_sender_stays_for_a_run_of_a_dead_process(proxy: Proxy, on_sqlite: Server, name: str, spool: Path):
    """Row 88. It does not end while the run's delivery may still go on, as with a file that takes minutes."""
    first = RunStarted(
        key=uuid.uuid4().hex,
        name=name,
        time=1,
        tracking_uri=proxy.uri,
        folder=str(spool),
        experiment="faults",
    )
    dead = open_run(spool_root(str(spool)), first)
    dead.end(RunEnded(status="FINISHED", time=2))
    dead.release()
    waits = threading.Event()
    proxy.rule(how.keep(waits), times=1)
    abandoned = AbandonedRuns(spool)
    abandoned.look()
    until(lambda: proxy.asked)
    threading.Timer(0.1, waits.set).start()
    abandoned.wait()
    assert status(on_sqlite, name) == "FINISHED"
    assert waiting_in(spool) == []
