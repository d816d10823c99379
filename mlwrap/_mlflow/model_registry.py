"""Register models in MLflow's registry: create a version and set an alias."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlwrap._journal.names import Registered
from mlwrap._journal.progress import ModelProgress
from mlwrap._journal.records import Model
from mlwrap._journal.uri_passwords import with_password
from mlwrap._mlflow.server_errors import asked_without_retries, classifies_errors
from mlwrap._mlflow.sqlite_store import absolute_uri
from mlwrap._mlflow.undocumented import REGISTRY_CLIENT

_tracking_uri: contextvars.ContextVar[str | None] = contextvars.ContextVar("mlwrap_registry", default=None)


class Registry:
    """MLflow's registry of models.

    Args:
        tracking_uri: URI of MLflow; MLflow itself finds the registry's (``MLFLOW_REGISTRY_URI``).
    """

    def __init__(self, tracking_uri: str) -> None:
        self._full_uri = absolute_uri(with_password(tracking_uri))
        self._mlflow = MlflowClient(self._full_uri)
        self.tracking_uri = tracking_uri
        if not tracking_uri.startswith(("http:", "https:")):
            _look_in_own_store()
        self.asks_once = asked_without_retries()

    def register(self, record: Model, run_id: str, model: ModelProgress, save: Callable[[], None]) -> None:
        """Create a version of a READY model and set the alias; repeating the call changes nothing.

        Args:
            record: The model's journal record.
            run_id: The id of its run.
            model: The progress of its delivery; updated here.
            save: Writes the progress to disk.
        """
        registration = Registered.parse(record.register_as)
        version, source = None, f"models:/{model.model_id}" if model.model_id else model.location
        if model.registered is None:
            model.registered = ""
            save()
        else:  # an earlier request may have created it, and its response was not recorded
            version = self._find(registration.name, run_id, source)
        version = version or self._create(registration.name, run_id, source, model.model_id)
        if registration.alias is not None:
            self._set_alias(registration.name, registration.alias, version)
        model.registered = f"models:/{registration.name}/{version}"
        save()

    @classifies_errors
    def _find(self, name: str, run_id: str, source: str) -> str | None:
        for version in self._mlflow.search_model_versions(f"run_id = '{run_id}'"):
            if (version.name, version.source) == (name, source):
                return str(version.version)
        return None

    @classifies_errors
    def _create(self, name: str, run_id: str, source: str, model_id: str) -> str:
        try:
            return self._create_version(name, run_id, source, model_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            self._mlflow.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process created it
                raise
        return self._create_version(name, run_id, source, model_id)

    def _create_version(self, name: str, run_id: str, source: str, model_id: str) -> str:
        token = _tracking_uri.set(self._full_uri)
        try:
            version_entity = self._mlflow.create_model_version(
                name, source, run_id, model_id=model_id or None, await_creation_for=0
            )
        finally:
            _tracking_uri.reset(token)
        return str(version_entity.version)

    @classifies_errors
    def _set_alias(self, name: str, alias: str, version: str) -> None:
        self._mlflow.set_registered_model_alias(name, alias, version)


@functools.cache
def _look_in_own_store() -> None:
    """Make MLflow's SQL registry look for a model where the model is.

    It looks in the default MLflow of the process (its source says that this is to be changed). A process that
    delivers to several has no default, and may not set one: other threads use it.
    """
    stock = REGISTRY_CLIENT.find()  # loads SQLAlchemy
    if stock is None:
        return

    def client(*args: Any, **kwargs: Any) -> MlflowClient:
        uri = _tracking_uri.get()
        return MlflowClient(uri) if uri and not args and not kwargs else stock(*args, **kwargs)

    REGISTRY_CLIENT.replace(client)
