"""What an error of MLflow's means for a delivery."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE
from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from mlwrap._delivery.threads import Slots
from mlwrap._mlflow.server_errors import classify_error
from mlwrap.errors import Refused, Unreachable

CONNECTIONS = 15  # of SQLAlchemy's pool, as MLflow makes it


def test_a_store_without_a_free_connection_is_busy_and_refuses_no_value(tmp_path: Path):
    """MLflow tells it with the code of a bad request, by which a value would be looked for and given up."""
    engine = create_engine(
        f"sqlite:///{tmp_path / 'a.db'}", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0
    )
    with engine.connect(), pytest.raises(PoolTimeoutError) as full:
        engine.connect()
    error = MlflowException(str(full.value), error_code=BAD_REQUEST)
    assert isinstance(classify_error(error, "sqlite:///a.db"), Unreachable)
    engine.dispose()


def test_a_value_that_is_refused_is_known_as_such():
    """By the code that MLflow gives it."""
    problem = classify_error(MlflowException("too long", error_code=INVALID_PARAMETER_VALUE), "http://h")
    assert isinstance(problem, Refused)
    assert problem.of_value


def test_no_more_deliveries_to_a_store_than_it_has_connections(monkeypatch: pytest.MonkeyPatch):
    """Those among them that get nowhere hold one, too."""
    slots: Slots[int] = Slots("sqlite:///a.db")
    monkeypatch.setattr("mlwrap._delivery.threads.LONG_SECONDS", 0.0)
    while slots.has_room:
        slots.start(len(slots))
    assert len(slots) < CONNECTIONS
