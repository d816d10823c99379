"""What came out, and how is it written?

A saver writes one kind of object into a folder, says what MLflow's own loaders need to know of it, and
gives it back from there. This room may import ``mlwrap.errors``, ``mlwrap.config``,
``mlwrap._journal`` and ``mlwrap._capture``. It never imports MLflow, and loads no framework by being
imported: a saver is asked about an object only if its framework is loaded already.
"""

from mlwrap._journal import Metrics, Saved, Signature, TensorSpec
from mlwrap.savers._modules import import_modules
from mlwrap.savers._outputs import Output
from mlwrap.savers._registry import by_name, find, kinds, register
from mlwrap.savers._saver import SaveOptions, Saver
from mlwrap.savers._unpack import Found, Unpacked, unpack

__all__ = [
    "Found",
    "Metrics",
    "Output",
    "SaveOptions",
    "Saved",
    "Saver",
    "Signature",
    "TensorSpec",
    "Unpacked",
    "by_name",
    "find",
    "import_modules",
    "kinds",
    "register",
    "unpack",
]
