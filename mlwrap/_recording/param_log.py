"""Record the parameters of one run, each name once, because MLflow never changes a parameter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from mlwrap._capture.flatten import Captured
from mlwrap._capture.flatten import params as capture_params
from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import Params
from mlwrap._recording.artifact_log import ArtifactLog
from mlwrap._recording.run_log import RunLog

_FULL_VALUES = "params.json"


class ParamLog:
    """Writes the parameters of one run.

    Args:
        run: The run.
        artifacts: Stores the full text of long values.
    """

    def __init__(self, run: RunLog, artifacts: ArtifactLog) -> None:
        self._run, self._artifacts = run, artifacts
        self._values: dict[str, str] = {}
        self._full_values: dict[str, tuple[str, Any]] = {}

    def log(self, captured: Captured) -> None:
        """Write parameters; a second, different value of a name gets a new name, with a warning."""
        new: dict[str, str] = {}
        for name, text in captured.values.items():
            previous = self._values.get(name)
            if previous is None:
                new[name] = text
            elif previous != text:
                names = (to_mlflow_name(f"{name}.{number}") for number in itertools.count(2))
                free = next(
                    candidate
                    for candidate in names
                    if candidate not in self._values and candidate not in captured.values
                )
                new[free] = text
                self._run.warn(
                    f"parameter {name!r} was {previous!r} and can't change; the new value is logged as "
                    f"{free!r}. Log what changes as a metric."
                )
        self._values |= new
        if new:
            self._run.append(Params(values=new))
        if captured.full_values:
            self._full_values |= captured.full_values
            table = {
                name: {"name": original_name, "value": value}
                for name, (original_name, value) in self._full_values.items()
            }
            self._artifacts.text(
                msgspec.json.format(msgspec.json.encode(table).decode(), indent=2), _FULL_VALUES
            )

    def log_missing(self, values: Mapping[str, Any]) -> None:
        """Write the parameters whose names the run does not have yet."""
        captured = capture_params(values, redactor=self._run.redactor)
        missing = {name: text for name, text in captured.values.items() if name not in self._values}
        full_values = {name: value for name, value in captured.full_values.items() if name in missing}
        self.log(Captured(missing, full_values))

    def first(self, count: int) -> dict[str, str]:
        """Return the first ``count`` parameters, name to text."""
        return dict(itertools.islice(self._values.items(), count))
