"""Stock MLflow, which trusts a model's description, is asked only for what runs nothing that came with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlwrap._mlflow.model_files.stock_predict import stock_predict
from mlwrap._shipped.loader import is_shipped, ship_loader
from mlwrap.errors import LoadError


@pytest.mark.parametrize(
    ("flavors", "file", "words"),
    [
        ({"python_function": {"loader_module": "antigravity"}}, None, "loaded by antigravity"),
        ({"python_function": {"loader_module": "mlflow.keras", "code": "code"}}, None, "brings code"),
        ({"tensorflow": {"code": "code"}, "python_function": {}}, None, "brings code"),
        (
            {"python_function": {"loader_module": "mlflow.tensorflow"}},
            "custom_objects.cloudpickle",
            "is a pickle",
        ),
        (
            {"python_function": {"loader_module": "mlflow.tensorflow"}},
            "keras_module.txt",
            "'os', which is no Keras",
        ),
    ],
    ids=["loader", "code", "code of another flavor", "pickle", "Keras"],
)
def test_what_would_run_is_not_asked(tmp_path: Path, flavors, file, words):
    """Without trust; the sentence says why."""
    if file:
        (tmp_path / file).write_text("os")
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    with pytest.raises(LoadError, match=words):
        stock_predict(tmp_path, None, trust=False)


def test_mlwraps_own_loader_is_known_and_nothing_else_that_is_called_so(tmp_path: Path):
    """Byte for byte, and alone."""
    pyfunc = ship_loader(tmp_path, "tf2model", "serve")
    assert is_shipped(tmp_path, pyfunc)
    assert not is_shipped(tmp_path, {**pyfunc, "loader_module": "os"})
    assert not is_shipped(tmp_path, {**pyfunc, "code": "."})
    file = tmp_path / "code" / f"{pyfunc['loader_module']}.py"
    bytecode = file.parent / "__pycache__" / f"{file.stem}.cpython-311.pyc"
    bytecode.parent.mkdir()
    bytecode.write_bytes(b"what Python writes where it imports the file")
    assert is_shipped(tmp_path, pyfunc)
    bytecode.rename(bytecode.with_name("numpy.cpython-311.pyc"))
    assert not is_shipped(tmp_path, pyfunc)
    bytecode.with_name("numpy.cpython-311.pyc").unlink()
    beside = file.with_name("numpy.py")
    beside.write_text("")
    assert not is_shipped(tmp_path, pyfunc)
    beside.unlink()
    file.write_bytes(file.read_bytes() + b"\n")
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": pyfunc}}))
    with pytest.raises(LoadError, match="brings code"):
        stock_predict(tmp_path, None, trust=False)
