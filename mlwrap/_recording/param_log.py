"""The parameters of one run: MLflow never changes one, so each name is written once."""

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
        artifacts: Takes the full text of long values.
    """

    def __init__(self, run: RunLog, artifacts: ArtifactLog) -> None:
        self._run, self._artifacts = run, artifacts
        self._values: dict[str, str] = {}
        self._full_values: dict[str, tuple[str, Any]] = {}

    def log(self, captured: Captured) -> None:
        """Write parameters; a second, different value of one gets a name of its own, with a warning."""
        new: dict[str, str] = {}
        for name, text in captured.values.items():
            before = self._values.get(name)
            if before is None:
                new[name] = text
            elif before != text:
                names = (to_mlflow_name(f"{name}.{number}") for number in itertools.count(2))
                free = next(n for n in names if n not in self._values and n not in captured.values)
                new[free] = text
                self._run.warn(
                    f"parameter {name!r} was {before!r} and can't change; the new value is logged as "
                    f"{free!r}. Log what changes as a metric."
                )
        self._values |= new
        if new:
            self._run.append(Params(values=new))
        if captured.full_values:
            self._full_values |= captured.full_values
            table = {name: {"name": own, "value": value} for name, (own, value) in self._full_values.items()}
            self._artifacts.text(
                msgspec.json.format(msgspec.json.encode(table).decode(), indent=2), _FULL_VALUES
            )

    def log_missing(self, values: Mapping[str, Any]) -> None:
        """Write those parameters whose names the run does not have yet."""
        captured = capture_params(values, redactor=self._run.redactor)
        missing = {name: text for name, text in captured.values.items() if name not in self._values}
        full_values = {name: value for name, value in captured.full_values.items() if name in missing}
        self.log(Captured(missing, full_values))

    def first(self, count: int) -> dict[str, str]:
        """The first ``count`` parameters, name to text."""
        return dict(itertools.islice(self._values.items(), count))
