"""Every name of MLflow's that mlwrap uses although MLflow's documentation does not describe it.

Such a name may change with any release. So each is looked up here alone, with the reason why nothing
documented does the same, and with what mlwrap does if MLflow lacks it: less, but no run is lost. MLflow is
imported only when a name is looked up.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple


class UndocumentedName(NamedTuple):
    """A name that MLflow's documentation does not describe.

    Attributes:
        module: The module that has the name.
        name: The name in that module.
        why: What mlwrap needs it for, and why nothing documented does that.
        otherwise: What mlwrap does if this MLflow lacks it.
    """

    module: str
    name: str
    why: str
    otherwise: str

    def find(self) -> Any | None:
        """Return the object, or ``None`` if this version of MLflow lacks it."""
        try:
            return getattr(import_module(self.module), self.name)
        except (ImportError, AttributeError):
            return None

    def replace(self, replacement: object) -> None:
        """Let MLflow use another object under this name, in the whole process."""
        setattr(import_module(self.module), self.name, replacement)


_FLUENT = "mlflow.tracking.fluent"
ACTIVE_RUNS: Final = UndocumentedName(
    _FLUENT,
    "_active_run_stack",
    "mlflow.start_run(run_id=…), which is documented, needs the run to exist, so each run would wait for a "
    "request at its start; and it refuses a run of another experiment.",
    "Calls of mlflow.* in a run's body do not log to it. The run says so in a warning.",
)
LAST_ACTIVE_RUN: Final = UndocumentedName(
    _FLUENT,
    "_last_active_run_id",
    "mlflow.last_active_run() shall find the run, and the run ends without asking MLflow.",
    "Calls of mlflow.* in a run's body do not log to it. The run says so in a warning.",
)

_AUTOLOGGING = "mlflow.utils.autologging_utils"
AUTOLOGGING_LOGGER: Final = UndocumentedName(
    _AUTOLOGGING,
    "AutologgingEventLogger",
    "mlflow.keras.autolog(disable=True) turns autologging off for all threads, for code outside the run too.",
    "Autologging of Keras goes on in mlwrap's runs, so its metrics and its model are logged beside mlwrap's.",
)
AUTOLOGGING_SETTINGS: Final = UndocumentedName(
    _AUTOLOGGING, "AUTOLOGGING_INTEGRATIONS", AUTOLOGGING_LOGGER.why, AUTOLOGGING_LOGGER.otherwise
)

_RETRIES_WHY = (
    "The documented environment variable of that name would change the user's own calls of MLflow as well, "
    "which are made in the same process."
)
MAX_RETRIES: Final = UndocumentedName(
    "mlflow.utils.rest_utils",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    _RETRIES_WHY,
    "MLflow's client repeats a failed request itself, for minutes; mlwrap waits for it.",
)
REQUEST_TIMEOUT: Final = UndocumentedName(
    "mlflow.utils.rest_utils",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    _RETRIES_WHY,
    "A request to a server that does not answer takes MLflow's two minutes instead of 20 seconds.",
)
PRINTS_NO_URL: Final = UndocumentedName(
    "mlflow.tracking._tracking_service.client",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
    _RETRIES_WHY,
    "MLflow asks for the run once more at its end, and prints its URL.",
)

OPEN_STORE: Final = UndocumentedName(
    "mlflow.tracking._tracking_service.utils",
    "_get_store",
    "An SQL store keeps artifacts in the working directory of the process that opened it; the sender's is "
    "not the training's. MlflowClient.create_experiment(artifact_location=…), which is documented, does not "
    "apply to the experiment Default.",
    "create_experiment(artifact_location=…). The artifacts of a new store's experiment Default are kept "
    "beside the spool.",
)
ARTIFACT_REPOSITORY: Final = UndocumentedName(
    "mlflow.store.artifact.artifact_repository_registry",
    "get_artifact_repository",
    "MlflowClient.log_artifact() and log_model_artifacts(), which are documented, request the run or model "
    "anew for each file, and a model's file can't be sent alone.",
    "Artifacts and models wait in the run folder, until mlwrap or MLflow is updated.",
)
REGISTRY_CLIENT: Final = UndocumentedName(
    "mlflow.store.model_registry.sqlalchemy_store",
    "MlflowClient",
    "An SQL registry looks for a model in the process's default MLflow, which mlflow.set_tracking_uri() sets "
    "for all threads; a sender delivers to several.",
    "A model of another SQL store than the default one is not registered. The run says so.",
)
SAVE_EXAMPLE: Final = UndocumentedName(
    "mlflow.models.utils",
    "_save_example",
    "Only Model.log(), which logs the model too, writes an input example in MLflow's format.",
    "The model has no input example in MLflow, and the run says so.",
)


def _monitor(module: str, name: str) -> UndocumentedName:
    return UndocumentedName(
        f"mlflow.system_metrics.metrics.{module}",
        name,
        "mlflow.start_run(log_system_metrics=True), which is documented, samples in the training's process.",
        "These system metrics are not logged.",
    )


MONITORS: Final = (
    _monitor("cpu_monitor", "CPUMonitor"),
    _monitor("disk_monitor", "DiskMonitor"),
    _monitor("network_monitor", "NetworkMonitor"),
)
GPU_MONITORS: Final = (_monitor("gpu_monitor", "GPUMonitor"), _monitor("rocm_monitor", "ROCMMonitor"))
