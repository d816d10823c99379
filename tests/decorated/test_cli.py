"""The command: what waits, what is delivered, what MLflow has."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import mlwrap
from mlwrap import model_run
from mlwrap._cli.commands import cli
from mlwrap._process import shutdown
from mlwrap._run.run import current, recorder_of
from tests.spools import waiting_in


@pytest.fixture
def command(store: str, monkeypatch: pytest.MonkeyPatch):
    """Run the command in this process, which is not its own; gives its exit status and what it printed."""
    monkeypatch.setattr("mlwrap._cli.commands.warm_up", lambda: None)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, arguments, env={"COLUMNS": "200"})
        return done.exit_code, done.output

    return run


def waiting(name: str, **options: object) -> str:
    """A run that waits; gives its key."""
    with model_run(name, delivery="off", **options) as run:
        run.log_metric("loss", 0.5)
    return run.key


def test_sync_delivers_what_waits(command, runs, spool: Path):
    """And says so; a second sync has nothing to do."""
    waiting("a")
    waiting("b")
    code, output = command("sync")
    assert code == 0
    assert output.endswith("2 delivered, 0 waiting\n")
    assert set(runs()) == {"a", "b"}
    assert command("sync") == (0, "0 delivered, 0 waiting\n")
    assert waiting_in(spool) == []


def test_sync_says_what_it_could_not_deliver_and_why(command, runs, spool: Path):
    """Exit status 1; the others are delivered."""
    key = waiting("away", tracking_uri="http://127.0.0.1:9")
    waiting("here")
    code, output = command("sync")
    assert code == 1
    assert "no server listens at 127.0.0.1:9" in output
    assert f"it waits in {spool / key}" in output
    assert output.endswith("1 delivered, 1 waiting\n")
    assert set(runs()) == {"here"}


def test_sync_closes_the_run_of_a_dead_process(command, runs, spool: Path):
    """KILLED, with what it had logged."""
    context = model_run("dead", delivery="off")
    run = context.__enter__()
    run.log_metric("loss", 0.5)
    recorder_of(run).journal.release()  # as the kernel does for a process that dies
    shutdown.unlisten(context)
    current.set(None)
    assert command("sync")[0] == 0
    delivered = runs()["dead"]
    assert delivered.info.status == "KILLED"
    assert delivered.data.metrics == {"loss": 0.5}
    assert waiting_in(spool) == []


def test_status_lists_what_waits(command):
    """With its age, size and the reason; runs that are open, too."""
    assert command("status") == (0, "nothing waits\n")
    key = waiting("offline one")
    waiting("away", tracking_uri="http://127.0.0.1:9")
    command("sync", "--help")
    with model_run("open one"):
        mlwrap.sync()
        waiting("second offline one")
        code, output = command("status")
    assert code == 0
    lines = {line.split("│")[2].strip(): line for line in output.splitlines() if "│" in line}
    assert "open" in lines["open one"]
    assert "offline" in lines["second offline one"]
    assert "no server listens at 127.0.0.1:9" in lines["away"]
    assert key not in output


def test_clean_removes_only_what_is_named(command, spool: Path):
    """A run that waits is removed by its key alone; a wrong key removes nothing."""
    key, other = waiting("a"), waiting("b")
    assert command("clean") == (0, "")
    done = CliRunner().invoke(cli, ["clean", key, "nobody"])
    assert done.exit_code != 0
    assert "'nobody' is no run" in str(done.exception)
    assert len(waiting_in(spool)) == 2
    assert command("clean", key) == (0, f"removed {spool / key}\n")
    assert [folder.name for folder in waiting_in(spool)] == [other]


def test_clean_spares_a_run_that_is_open(command, spool: Path):
    """Its process would lose it."""
    with model_run("r", delivery="off") as run:
        done = CliRunner().invoke(cli, ["clean", run.key])
        assert "is still being written" in str(done.exception)
    assert len(waiting_in(spool)) == 1


def test_show(command):
    """The newest run, or the one that is named; nothing in a value is taken for markup."""
    with model_run("first", params={"folder": "[/data]", "password": "hunter22secret"}) as first:
        first.log_metric("loss", 0.5)
    with model_run("second"):
        pass
    code, output = command("show", first.run_id)
    assert code == 0
    assert "first · experiment test" in output
    assert "[/data]" in output
    assert "[redacted]" in output
    assert "0.5" in output
    assert "second · experiment test" in command("show")[1]


def test_an_error_is_a_sentence(python, store: str):
    """And exit status 1, no traceback."""
    done = python(
        "import sys\nfrom mlwrap._cli.commands import main\n"
        "sys.argv = ['mlwrap', 'show', 'nothing']\nmain()\n",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("mlwrap: MLflow at sqlite:///")
    assert "Traceback" not in done.stderr
