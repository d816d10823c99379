"""What came out, and how is it written?

A saver writes one kind of object into a folder, says what MLflow's own loaders need to know of it, and
gives it back from there. This room may import ``mlwrap.errors``, ``mlwrap.config``,
``mlwrap._journal`` and ``mlwrap._capture``. It never imports MLflow, and loads no framework by being
imported: a saver is asked about an object only if its framework is loaded already.
"""

from mlwrap._journal import Metrics, Saved, Signature, TensorSpec
from mlwrap.savers._example import keep_example
from mlwrap.savers._per_model import per_model
from mlwrap.savers._predict import arrays, difference, predict
from mlwrap.savers._registry import by_name, find, kinds, register
from mlwrap.savers._saver import SaveOptions, Saver
from mlwrap.savers._unpack import Found, Unpacked, unpack

__all__ = [
    "Found",
    "Metrics",
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
    "keep_example",
    "kinds",
    "per_model",
    "predict",
    "register",
    "unpack",
]
