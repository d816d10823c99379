"""Add support for a new type: write a saver and register it.

A saver writes one kind of object to files, describes it for MLflow's own loaders, and reads it back.
See ``docs/how-to/teach-a-new-type.md``.
"""

from mlwrap._journal.records import Metrics, Saved, Signature, TensorSpec
from mlwrap._savers.saver_interface import SaveOptions, Saver
from mlwrap._savers.saver_registry import register

__all__ = ["Metrics", "SaveOptions", "Saved", "Saver", "Signature", "TensorSpec", "register"]
