"""The loader that travels with models which MLflow's own can't feed, and how it is known again.

::

    code/mlwrap_loader_1.py  what mlwrap/_shipped/pyfunc_loader.py is

MLflow puts the folder ``code`` on Python's path, so the file's name has a number: models of two versions of
mlwrap, loaded by one process, must not get each other's.
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
        data: Its SavedModel or ``.keras`` file, relative to ``folder``.
        signature: Of a SavedModel, name of the signature that is to be served.

    Returns:
        The configuration of MLflow's generic flavor.
    """
    target = folder / _CODE / f"{_NAME}.py"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(_SOURCE.read_bytes())
    config = {"signature": signature} if signature is not None else {"framework": "keras"}
    return {"loader_module": _NAME, "data": data, "code": _CODE, "model_config": config}


def is_shipped(folder: Path, pyfunc: Mapping[str, Any]) -> bool:
    """Tell whether the only code that a logged model brings is this loader, byte for byte."""
    code = folder / _CODE
    files = [path for path in code.rglob("*") if not path.is_dir()] if pyfunc.get("code") == _CODE else []
    return (
        files == [code / f"{_NAME}.py"]
        and pyfunc.get("loader_module") == _NAME
        and not files[0].is_symlink()
        and files[0].read_bytes() == _SOURCE.read_bytes()
    )
