"""Save ``.keras`` files by path: zips with a version in ``metadata.json`` and the model in ``config.json``.

The file is copied and described from its content; Keras need not be imported for that.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved, Signature, TensorSpec
from mlwrap._savers.keras.model import KerasSaver
from mlwrap._savers.keras_checks.archive import check_archive
from mlwrap._savers.keras_checks.config import names_of
from mlwrap._savers.keras_checks.packages import flavor_of, frameworks_of, pyfunc_of, tell_mlflow
from mlwrap._savers.keras_serving.advice import warn_of_forms
from mlwrap._savers.paths import named_path
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.signature import Unknown, attempt, make_spec
from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import LoadError, SaveError

_DATA = "data"
_MAX_JSON_BYTES = 1 << 26  # bytes of a model's configuration; that of a large model has a megabyte
_LAYER_HOMES = ("layers", "utils")  # FeatureSpace is in utils
_LAST_OF_KERAS_2 = 15  # the minor version; 2.16 and later is tf_keras


class KerasFileSaver(KerasSaver):
    """Saves a ``.keras`` file that a model or a ``ModelCheckpoint`` wrote."""

    name = "keras_file"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of a ``.keras`` file."""
        path = named_path(value)
        return path is not None and path.suffix == ".keras" and os.path.isfile(path)  # noqa: PTH113

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy the file, and read from it which Keras it needs.

        Raises:
            SaveError: It is not a ``.keras`` file, or is damaged.
            SpoolError: It can't be read.
        """
        file = folder / _DATA / "model.keras"
        file.parent.mkdir()
        copy_regular(Path(os.fsdecode(value)), file)
        try:
            with zipfile.ZipFile(file) as archive:
                version = str(_json(archive, "metadata.json")["keras_version"])
                config = _json(archive, "config.json")
                archive.getinfo("model.weights.h5")
            package = package_of(version)
            check_archive(file)
        except (LoadError, zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError, EOFError) as error:
            raise SaveError(
                f"{os.fsdecode(value)} is no .keras file that loads ({type(error).__name__}: {error}). "
                "Was it cut short? Save the model again.",
                value,
            ) from error
        # Only an imported Keras can tell what it would not find; without one the file is copied anyway.
        names = names_of(config if package in sys.modules else {}, sys.modules.get(package))
        warn_of_forms(names, package)
        flavor, settings = flavor_of(package, version)
        if flavor == "tensorflow":
            tell_mlflow(file.parent, package, "keras")
        return Saved(
            flavors={flavor: settings},
            pyfunc=None if _is_of_layer(config) else pyfunc_of(flavor),
            signature=attempt(declared_inputs, config),
            details={"keras": package, "version": version, **names.details},
            packages=(*frameworks_of(flavor, package), *names.packages),
            modules=names.modules,
            forms=("training",),
        )

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a file has no record of its training."""
        return ()


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(name) as member:
        text = member.read(_MAX_JSON_BYTES + 1)
    if len(text) > _MAX_JSON_BYTES:
        raise ValueError(f"{name} has more than {_MAX_JSON_BYTES >> 20} MiB")
    return json.loads(text)


def _is_of_layer(config: Any) -> bool:
    """Return whether a configuration is that of a Keras layer, which stock MLflow can't predict with."""
    module = str(config.get("module")).removeprefix("tf_").removeprefix("keras.").removeprefix("src.")
    return module.partition(".")[0] in _LAYER_HOMES


def package_of(version: str) -> str:
    """Return the Keras package that has this version."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return "tf_keras" if major == 2 and minor > _LAST_OF_KERAS_2 else "keras"  # noqa: PLR2004


def declared_inputs(config: Any) -> Signature | None:
    """Return the inputs of a sequential or functional model from its configuration, which omits outputs."""
    inner = config["config"]
    input_layers = {
        layer["config"]["name"]: layer["config"]
        for layer in inner["layers"]
        if layer["class_name"] == "InputLayer"
    }
    if config["class_name"] == "Sequential":
        return (
            Signature(inputs=tuple(_spec_of_layer(None, layer) for layer in input_layers.values()))
            if input_layers
            else None
        )
    inputs = inner["input_layers"]
    if isinstance(inputs, dict):
        return Signature(
            inputs=tuple(
                _spec_of_layer(name, input_layers[reference[0]]) for name, reference in inputs.items()
            )
        )
    names = [inputs[0]] if isinstance(inputs[0], str) else [reference[0] for reference in inputs]
    several = len(names) > 1
    return Signature(
        inputs=tuple(_spec_of_layer(name if several else None, input_layers[name]) for name in names)
    )


def _spec_of_layer(name: str | None, layer: Mapping[str, Any]) -> TensorSpec:
    if layer.get("ragged") or layer.get("sparse"):
        raise Unknown(name)
    dtype = layer["dtype"]
    shape = layer.get("batch_shape") or layer["batch_input_shape"]
    return make_spec(name, dtype if isinstance(dtype, str) else dtype["config"]["name"], shape)
