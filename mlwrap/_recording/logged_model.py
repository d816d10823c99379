"""``LoggedModel``: the name, status and URI of a model that a run logged."""

from __future__ import annotations

import re
from typing import Literal

_NOT_IN_NAMES = re.compile(r"[/:.%\"'\x00-\x1f]")


def plain_name(name: str) -> str:
    """Return ``name`` with ``_`` for the characters that MLflow does not allow in the name of a model."""
    return _NOT_IN_NAMES.sub("_", name)


class LoggedModel:
    """A model that a run logged.

    Attributes:
        name: Its name in MLflow.
        status: ``SAVING``, then ``STAGED`` until MLflow has it, then ``READY``; ``FAILED`` if it could not be
            saved; ``REPLACED`` if a newer model replaced it while it waited to be saved in the background.
        uri: ``models:/<model id>``, once MLflow has the model; :func:`mlwrap.load_model` accepts it.
        registered: ``models:/<name>/<version>``, once the model registry has the model.
        step: The training step that it was logged for.
        checkpoint: Whether it is an intermediate state, which is not the run's ``model_uri`` if the run has
            another model.
        call: The number of the call that logged it; the models of one returned value share it.
    """

    def __init__(
        self,
        name: str,
        status: Literal["SAVING", "STAGED"] = "SAVING",
        *,
        step: int = 0,
        checkpoint: bool = False,
        call: int = 0,
    ) -> None:
        self.name = name
        self.status: str = status
        self.uri: str | None = None
        self.registered: str | None = None
        self.step, self.checkpoint, self.call = step, checkpoint, call

    @property
    def label(self) -> str:
        """The model's name, with its step if it was logged for one: ``checkpoint@3``."""
        return f"{self.name}@{self.step}" if self.checkpoint or self.step else self.name

    def delivered(self, status: str, uri: str, registered: str | None) -> None:
        """Update status and URIs after delivery."""
        self.status, self.uri, self.registered = status, uri, registered or None

    def __repr__(self) -> str:
        return f"<LoggedModel {self.label!r} {self.status} {self.uri or ''}>"
