"""What came out, and how is it written?

A saver writes one kind of object into a folder, says what MLflow's own loaders need to know of it, and
gives it back from there. This room may import ``mlwrap.errors``, ``mlwrap.config``,
``mlwrap._journal`` and ``mlwrap._capture``. It never imports MLflow or a framework by being imported: a
saver is asked about an object only if its framework is loaded already, and the one of frameworks that MLflow
has a flavor for imports MLflow while it saves or loads.

To teach mlwrap a new type take ``Saver``, ``SaveOptions``, ``Saved``, ``Signature``, ``TensorSpec`` and
``Metrics``, and give :func:`mlwrap.register_saver` your saver.
"""

from mlwrap._journal import Metrics, Saved, Signature, TensorSpec
from mlwrap.savers._events import folder_metrics
from mlwrap.savers._example import keep_example
from mlwrap.savers._figures import write_figure
from mlwrap.savers._fits import FitLog, goes_on, watch_fits
from mlwrap.savers._flavor_formats import imported_mlflow
from mlwrap.savers._keras_serving import has_serving_form
from mlwrap.savers._outputs import Output
from mlwrap.savers._per_model import per_model
from mlwrap.savers._predict import arrays, difference, predict
from mlwrap.savers._registry import (
    by_name,
    find,
    import_needed,
    kinds,
    load,
    register,
    remembered,
    require_plain_graphs,
    save,
    snapshot,
)
from mlwrap.savers._saver import SaveOptions, Saver, naming
from mlwrap.savers._unpack import Found, Unpacked, unpack

__all__ = [
    "FitLog",
    "Found",
    "Metrics",
    "Output",
    "SaveOptions",
    "Saved",
    "Saver",
    "Signature",
    "TensorSpec",
    "Unpacked",
    "arrays",
    "by_name",
    "difference",
    "find",
    "folder_metrics",
    "goes_on",
    "has_serving_form",
    "import_needed",
    "imported_mlflow",
    "keep_example",
    "kinds",
    "load",
    "naming",
    "per_model",
    "predict",
    "register",
    "remembered",
    "require_plain_graphs",
    "save",
    "snapshot",
    "unpack",
    "watch_fits",
    "write_figure",
]
