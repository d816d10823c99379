"""Save Keras layers that are returned or logged themselves: ``FeatureSpace``, adapted preprocessing.

Keras saves layers in the same way as models, with what they learned: a vocabulary, a mean. So they are
written as ``.keras`` files, too, and loaded by :func:`mlwrap.load_model`. Stock MLflow can only feed
models; it gets the graph of what the layer computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.identify import class_name, imported, owner
from mlwrap._savers.keras.model import MODEL_FILE, KerasSaver, own_classes, require_no_pickle, write
from mlwrap._savers.keras_checks.archive import read_config
from mlwrap._savers.keras_checks.config import names_of
from mlwrap._savers.keras_checks.packages import PACKAGES, details_of, flavor_of, frameworks_of
from mlwrap._savers.keras_serving.advice import warn_of_forms
from mlwrap._savers.keras_serving.forms import try_serving, with_serving
from mlwrap._savers.keras_serving.inputs import is_layer
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap.errors import LoadError


class KerasLayerSaver(KerasSaver):
    """Saves Keras layers so that ``mlflow.keras`` loads them and ``mlflow.pyfunc`` computes with them."""

    name = "keras_layer"
    default_name = "keras_layer"

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is a layer of any Keras and not a model."""
        return is_layer(value)

    def snapshot(self, value: Any) -> None:
        """Return none: a layer is small, and is written at once."""

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Write ``value`` with its own Keras, and the graph of what it computes.

        Raises:
            SaveError: It can't be read, or a part can only be pickled.
        """
        package = owner(value, "Layer", packages=PACKAGES) or "keras"
        keras: Any = imported(package)
        version = str(keras.__version__)
        (folder / MODEL_FILE).parent.mkdir()
        zips = write(value, folder / MODEL_FILE, keras)
        classes = own_classes(value)
        names = names_of(
            read_config(folder / (zips[MODEL_FILE].folder if zips else MODEL_FILE)), keras, classes
        )
        require_no_pickle(value, names)
        flavor, config = flavor_of(package, version)
        form, problem = try_serving(value, folder, options, package)
        warn_of_forms(
            names,
            package,
            kind="layer",
            serves=form is not None,
            problem=problem,
            classes=classes,
            unsafe=form.unsafe if form else (),
        )
        saved = Saved(
            # mlflow.keras loads what Keras loads; mlflow.tensorflow would wrap it as a model.
            flavors={flavor: config} if flavor == "keras" else {},
            details=details_of(package, version) | names.details,
            packages=(*frameworks_of(flavor, package), *names.packages),
            modules=names.modules,
            zips=zips,
            forms=("training",),
        )
        return saved if form is None else with_serving(saved, form)

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a layer is adapted, not trained."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:
        """Return the layer, loaded by the Keras that wrote it.

        Raises:
            LoadError: As for a model; or ``into`` was given.
        """
        if into is not None:
            raise LoadError(
                f"A Keras layer is given back whole, and into= is a {class_name(into)}. Leave into= out."
            )
        return super().load(folder, details, trust=trust)
