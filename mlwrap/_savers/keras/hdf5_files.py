"""Save HDF5 files of Keras by path: complete models or only weights, according to their attributes."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.keras.files import declared_inputs, package_of
from mlwrap._savers.keras.model import KerasSaver
from mlwrap._savers.keras.weights import ADAPTER, restore_weights
from mlwrap._savers.keras_checks.archive import check_hdf5
from mlwrap._savers.keras_checks.packages import keras_for, tell_mlflow
from mlwrap._savers.paths import inside, named_path
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.signature import attempt
from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import LoadError, SaveError, describe_error, warn

_DATA = "data"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ENDINGS = (".h5", ".hdf5")


class KerasHdf5Saver(KerasSaver):
    """Saves a complete model in an HDF5 file. Stock MLflow loads it; mlwrap only with ``trust=True``."""

    name = "keras_hdf5"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of an HDF5 file with a model in it."""
        return _hdf5_attributes(value).get("model_config") is not None

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy the file.

        Raises:
            SaveError: It does not say which Keras wrote it.
            SpoolError: It can't be read.
        """
        file = folder / _DATA / "model.h5"
        file.parent.mkdir()
        copy_regular(Path(os.fsdecode(value)), file)
        attributes = _hdf5_attributes(file)
        try:
            version = attributes["keras_version"]
            package = package_of(version)
        except (KeyError, ValueError) as error:
            raise SaveError(
                f"{os.fsdecode(value)} does not say which Keras wrote it. Save the model as .keras.", value
            ) from error
        tell_mlflow(file.parent, package, "h5")
        settings = {
            "data": _DATA,
            "model_type": "keras",
            "keras_module": package,
            "keras_version": version,
            "save_format": "h5",
        }
        return Saved(
            flavors={"tensorflow": settings},
            pyfunc={"loader_module": "mlflow.tensorflow", "data": _DATA},
            signature=attempt(lambda text: declared_inputs(json.loads(text)), attributes.get("model_config")),
            details={"keras": package, "version": version},
            packages=(package, "tensorflow"),
            forms=("training",),
        )

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a file has no record of its training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Return the model, compiled; warn if its optimizer, loss or metrics can't be read.

        Raises:
            LoadError: Without ``trust``; or its Keras is not installed, or the file can't be read.
        """
        if not trust:
            raise LoadError(
                "This model is an HDF5 file, whose format lets it bring code that runs on loading. Pass "
                "trust=True if you trust where it comes from, or save the model as .keras."
            )
        keras = keras_for(str(details.get("keras")), str(details.get("version")))
        check_hdf5(folder / _DATA / "model.h5", "The model")
        # Keras 3 needs safe_mode=False here too; the other versions have no such argument for HDF5.
        trusted = {"safe_mode": False} if keras.__version__.startswith("3.") else {}
        load = functools.partial(keras.saving.load_model, str(folder / _DATA / "model.h5"), **trusted)
        try:
            return load()
        except Exception as error:  # noqa: BLE001  # Keras 3 can't read a loss by name, though it writes one
            try:
                model = load(compile=False)
            except Exception as real:
                raise LoadError(
                    f"This Keras model could not be rebuilt from its HDF5 file: {describe_error(real)}"
                ) from real
            warn(
                "The model comes back without its optimizer, loss and metrics, which can't be read: "
                f"{describe_error(error)}. To train it on, compile() it first."
            )
            return model


class KerasWeightsSaver:
    """Saves a file of weights that ``save_weights`` or a ``ModelCheckpoint`` wrote."""

    name = "keras_weights"
    format = 1
    default_name = "weights"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of a ``.weights.h5`` file, or of an older kind of one."""
        path = named_path(value)
        if path is None or not os.path.isfile(path):  # noqa: PTH113
            return False
        attributes = _hdf5_attributes(path)
        is_named = path.name.endswith((".weights.h5", ADAPTER))
        return "model_config" not in attributes and (is_named or "layer_names" in attributes)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy the file.

        Raises:
            SaveError: It is not an HDF5 file.
            SpoolError: It can't be read.
        """
        source = Path(os.fsdecode(value))
        # Keras chooses between its two formats by the file's name.
        endings = (".weights.h5", ADAPTER)
        name = next((f"model{end}" for end in endings if source.name.endswith(end)), "weights.h5")
        file = folder / _DATA / name
        file.parent.mkdir()
        copy_regular(source, file)
        if not _is_hdf5(file):
            raise SaveError(f"{source} is no HDF5 file: it is damaged. Save the weights again.", value)
        details = {"weights": f"{_DATA}/{name}"}
        return Saved(details=details, packages=("keras", "tf_keras"), forms=("weights",))

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: weights have no record of their training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Load the weights into ``into``, a model of the same layers, and return it.

        Raises:
            LoadError: ``into`` is missing or not a Keras model, or the weights do not fit.
        """
        weights = inside(folder, details["weights"])
        return restore_weights(into, weights, "These are weights and no model")


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5)) == _HDF5
    except OSError:
        return False


def _hdf5_attributes(value: object) -> dict[str, str]:
    """Return the attributes that say what an HDF5 file contains; none if it is not an HDF5 file."""
    path = named_path(value)
    if path is None or path.suffix not in _ENDINGS or not _is_hdf5(path):
        return {}
    try:
        import h5py  # noqa: PLC0415  # only needed to read a file; every Keras depends on it

        with h5py.File(path, "r") as file:
            return {
                name: attribute.decode()
                if isinstance(attribute := file.attrs[name], bytes)
                else str(attribute)
                for name in ("model_config", "keras_version", "layer_names")
                if name in file.attrs
            }
    except Exception:  # noqa: BLE001  # h5py is missing or the file is damaged: its content is unknown
        return {}
