"""A secret is nowhere but where the user put it: not in the spool, not on the screen, not on the server."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlwrap
from mlwrap._delivery.sync import sync
from tests.faults.proxy import Proxy
from tests.faults.servers import Server

CANARY = "c4n4ry-9d1f"
SOURCE = """
uri, canary = os.environ["WHERE"], os.environ["BIRD"]
@mlwrap.tracked_training(experiment="secrets", tracking_uri=uri)
def train(*, password, units=3):
    mlwrap.current_run().log_metric("loss", 0.5)
    mlwrap.current_run().set_tags({"address": uri, "api_key": canary})
    mlwrap.current_run().log_text(f"see {uri}", "note.txt")
    raise ValueError(f"no access to {uri} with password={canary}")
train(password=canary)
"""


def lies_in(folder: Path) -> list[str]:
    """The files in which the canary is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def test_a_canary_stays_in_its_cage(
    script, proxy: Proxy, on_sqlite: Server, spool: Path, monkeypatch: pytest.MonkeyPatch
):
    """Row 54. In a tracking URI, arguments, tags, texts and an exception; server away, then there."""
    uri = proxy.uri.replace("//", f"//somebody:{CANARY}@")
    proxy.refuse()
    process = script(SOURCE, WHERE=uri, BIRD=CANARY, MLWRAP_DEADLINE="1", MLWRAP_QUIET="0")
    _, err = process.communicate(timeout=120)
    assert "somebody:***@" in err
    ours = [line for line in err.splitlines() if "mlwrap" in line.lower()]
    assert ours
    assert not any(CANARY in line for line in ours)
    assert lies_in(spool) == []
    proxy.accept()

    (refused,) = sync()
    assert refused.run_id is None
    assert "Set MLFLOW_TRACKING_URI to the whole URI" in refused.error
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (delivered,) = sync()
    assert delivered.error is None
    assert lies_in(on_sqlite.artifacts.parent) == []
    assert all("Authorization" in asked.headers for asked in proxy.asked)


def test_a_password_for_the_sender(script, proxy: Proxy, on_sqlite: Server, spool: Path):
    """It travels to the sender with the run, which delivers although the environment knows nothing of it."""
    uri = proxy.uri.replace("//", f"//somebody:{CANARY}@")
    source = """
with mlwrap.model_run("r", experiment="secrets", tracking_uri=os.environ.pop("WHERE")) as run:
    run.log_metric("loss", 0.5)
print(run.run_id, run.tracking_uri)
"""
    out, err = script(source, WHERE=uri).communicate(timeout=120)
    run_id, shown = out.split()
    assert shown == proxy.uri.replace("//", "//somebody:***@")
    assert CANARY not in err
    assert all("Authorization" in asked.headers for asked in proxy.asked)
    assert mlwrap.sync() == []
    assert lies_in(spool) == lies_in(on_sqlite.artifacts.parent) == []
    assert len(run_id) == 32


def test_tokens_in_what_a_run_records(script, on_sqlite: Server, spool: Path):
    """Row 54. In addresses, under names and in texts; the file ``note.txt`` among them."""
    source = """
bird = os.environ["BIRD"]
address = f"https://{bird}@host/x"
with mlwrap.model_run("r", params={"remote": address, "pass_": bird}) as run:
    run.log_params({"tokens": [bird], "headers": [["x-api-key", bird]], "wandb": {"wandb_key": bird}})
    run.set_tags({"from": address, "pässword": bird, "argv": ["--password", bird]})
    run.log_text(f"curl -u me:{bird} {address}; deploy --password {bird}", "note.txt")
    raise ValueError(f"no access: {address}")
"""
    _, err = script(source, BIRD=CANARY, MLFLOW_TRACKING_URI=on_sqlite.uri).communicate(timeout=120)
    assert "no access" in err
    assert mlwrap.sync() == []
    assert lies_in(spool) == lies_in(on_sqlite.artifacts.parent) == []
