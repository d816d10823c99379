"""``model_run``: track what happens inside a ``with`` block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mlwrap._capture.flatten import params as capture_params
from mlwrap._run.context import RunContext
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap.config import Options, check_type, is_own_option, settings

if TYPE_CHECKING:
    from typing_extensions import Unpack


def model_run(
    name: str = "run",
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    verify: Literal["static", "load"] = "static",
    **options: Unpack[Options],
) -> RunContext:
    """Track what happens inside a ``with`` or ``async with`` block as an MLflow run.

    Args:
        name: The run's name in MLflow.
        params: Parameters to log at the start; nested values are flattened.
        tags: Tags for MLflow.
        run_id: MLflow's id of an existing run to continue; its name, experiment and parent stay the same.
            By default, the first run of the process takes ``MLFLOW_RUN_ID``, which ``mlflow run`` sets.
        verify: With ``"load"``, a separate process loads every model that the run logs, in each of its forms;
            checkpoints only if :meth:`Run.log_model` requests it. The end of the run waits for that.
        **options: Any of :class:`mlwrap.config.Settings`, for this run only: ``experiment``,
            ``tracking_uri``, ``delivery``, ``wait``, ``spool``, ``strict``, ``quiet``, ``disabled``.

    Returns:
        A context manager; entering it starts the run and returns the :class:`Run`.

    Raises:
        OptionError: An option does not exist, or has a wrong type or value.
        SpoolError: The spool can't be written; raised on entering.
    """
    check_type("name", name, str)
    for option, value in (("params", params), ("tags", tags)):
        if value is not None:
            check_type(option, value, Mapping)
    check_type("run_id", "" if run_id is None else run_id, str)
    SaveOptions(verify=verify)  # raises OptionError for a wrong value
    given_params = dict(params or {})
    return RunContext(
        name,
        settings(**options),
        capture=lambda redactor: capture_params(given_params, redactor=redactor),
        tags=tags,
        run_id=run_id,
        own_experiment=is_own_option("experiment", options),
        verify=verify,
    )
