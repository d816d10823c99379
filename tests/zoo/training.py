"""Train the models of some families and log them: ``python -m tests.zoo.training <work> <family>...``."""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from mlwrap import load_model
from mlwrap.errors import LoadError, MlwrapWarning
from tests.zoo.entries import Entry, entries_of, plain

_FORMS = {
    "training": "data/model.keras",
    "weights": "data/model.weights.h5",
    "serving": "serving",
    "SavedModel": "tf2model",
    "checkpoint": "checkpoint",
    "export": "tfmodel",
}


def train(entry: Entry, number: int) -> dict[str, Any]:
    """Train one model; gives what was found, as JSON."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        returned = entry.train()
    said = [str(one.message) for one in caught if issubclass(one.category, MlwrapWarning)]
    row: dict[str, Any] = {"stands_for": entry.stands_for, "said": said, "gap": entry.gap}
    row |= {"path": f"/{number}", "pyfunc": False}
    row["feed"] = _written(entry.feed)
    logged = entry.train.last_run.models
    if not logged:
        client = mlflow.MlflowClient()
        files = [item.path for item in client.list_artifacts(entry.train.last_run.run_id)]
        return row | {"status": "no model", "forms": sorted(files), "expected": None, "names": []}
    row |= {"status": logged[0].status, "uri": logged[0].uri, "forms": []}
    model = entry.of(returned)
    row["expected"] = plain(entry.predict(model, entry.feed))
    row["names"] = list(getattr(model, "output_names", None) or ())
    if row["status"] != "READY":
        return row
    found = mlflow.get_logged_model(logged[0].uri.removeprefix("models:/"))
    folder = Path(found.artifact_location.removeprefix("file://"))
    row["forms"] = [form for form, file in _FORMS.items() if (folder / file).exists()]
    row["pyfunc"] = "python_function" in mlflow.models.Model.load(str(folder)).flavors
    row["with_code"] = _loads_with_code(entry, model, logged[0].uri, row)
    return row


def _written(feed: Any) -> Any:
    if feed is None:
        return None
    if isinstance(feed, dict):
        return {name: _written(part) for name, part in feed.items()}
    array = np.asarray(feed)
    return {"values": array.tolist(), "dtype": "object" if array.dtype.kind in "OSU" else array.dtype.name}


def _loads_with_code(entry: Entry, model: Any, uri: str, row: dict[str, Any]) -> str:
    """How ``load_model`` gives it back where its code is; the weights into the model, once it lost them."""
    errors = []
    for how in ("yes", "`trust=True`", "`into=`"):
        try:
            if how == "`into=`":
                for weight in getattr(model, "weights", ()):
                    weight.assign(0 * weight)
                loaded = load_model(uri, into=model)
            else:
                loaded = load_model(uri, trust=how != "yes")
            found = plain(entry.predict(loaded, entry.feed))
        except LoadError as error:
            errors.append(f"{how}: {error}")
            continue
        except Exception as error:  # noqa: BLE001 - it is what the row tells
            errors.append(f"{how}: {''.join(traceback.format_exception(error))[-2000:]}")
            continue
        if same(row["expected"], found, row["names"]):
            return how
        errors.append(f"{how}: it predicts {found}")
    row["load_errors"] = errors
    return "no"


def same(expected: Any, found: Any, names: list[str]) -> bool:
    """Whether two predictions are equal; a list of outputs may come back by their names."""
    if expected is None or found is None:
        return expected is found
    if isinstance(found, list) and isinstance(expected, dict) and list(expected) == ["outputs"]:
        found = {"outputs": found}  # as JSON has it
    if isinstance(expected, dict) and list(expected) == ["outputs"] and isinstance(found, dict):
        parts = expected["outputs"]
        if list(found) != ["outputs"]:
            known = names if set(names) == set(found) else [f"output_{n}" for n in range(len(parts))]
            if set(known) != set(found):
                return False
            found = {"outputs": [found[name] for name in known]}
        there = found["outputs"]
        return len(parts) == len(there) and all(same(a, b, []) for a, b in zip(parts, there, strict=True))
    if isinstance(found, dict) and list(found) == ["output_0"]:  # TensorFlow's name for one without a name
        found = found["output_0"]
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and set(expected) == set(found)
            and all(same(part, found[name], []) for name, part in expected.items())
        )
    try:
        left, right = np.array(expected), np.array(found)
    except ValueError:
        return False
    if left.shape != right.shape:
        return False
    if left.dtype.kind == "U":
        return bool((left == right).all())
    return bool(np.allclose(left, right, rtol=1e-4, atol=1e-5))


def main(work: Path, families: list[str]) -> None:
    """Train them all, and write down what was found."""
    logging.getLogger("tensorflow").setLevel("ERROR")  # it warns of many models in one process
    rows: dict[str, Any] = {}
    for family in families:
        for entry in entries_of(family):
            print(entry.name, flush=True)  # the last one is it, if something goes wrong
            rows[entry.name] = train(entry, len(rows)) | {"family": family}
    (work / "trained.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
