"""Copy mlwrap's loader into models that MLflow's own loaders can't feed, and recognize it again.

::

    code/mlwrap_loader_1.py  a copy of mlwrap/_shipped/pyfunc_loader.py

MLflow puts the folder ``code`` on Python's path. The file's name has a number, so that models written by
two versions of mlwrap and loaded by one process do not share a loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CODE = "code"  # MLflow's own name for it
_NAME = "mlwrap_loader_1"
_SOURCE = Path(__file__).with_name("pyfunc_loader.py")


def ship_loader(folder: Path, data: str, signature: str | None = None) -> dict[str, Any]:
    """Copy the loader into a logged model.

    Args:
        folder: The model's folder.
        data: The model's SavedModel or ``.keras`` file, relative to ``folder``.
        signature: For a SavedModel, the name of the signature to serve.

    Returns:
        The configuration of MLflow's generic flavor.
    """
    target = folder / _CODE / f"{_NAME}.py"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(_SOURCE.read_bytes())
    config = {"signature": signature} if signature is not None else {"framework": "keras"}
    return {"loader_module": _NAME, "data": data, "code": _CODE, "model_config": config}


def is_shipped(folder: Path, pyfunc: Mapping[str, Any]) -> bool:
    """Return whether the only code in a logged model is this loader, byte for byte."""
    code = folder / _CODE
    files = [path for path in code.rglob("*") if not path.is_dir()] if pyfunc.get("code") == _CODE else []
    return (
        files == [code / f"{_NAME}.py"]
        and pyfunc.get("loader_module") == _NAME
        and not files[0].is_symlink()
        and files[0].read_bytes() == _SOURCE.read_bytes()
    )
