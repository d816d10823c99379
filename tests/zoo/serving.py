"""Load models with stock MLflow and serve them over HTTP, where neither their code nor mlwrap is.

A program of its own: ``serving.py <work>``, in a folder that holds ``trained.json``. What each model
predicted goes to ``loaded.json``; the address, when all can be asked, to its standard output.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

sys.modules["mlwrap"] = sys.modules["tests"] = None  # type: ignore[assignment]  # an import of either fails

import mlflow  # noqa: E402 - after what stands above
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from mlflow.pyfunc import scoring_server  # noqa: E402


def as_array(part: dict[str, Any]) -> Any:
    """An array as it was written down."""
    return np.array(part["values"], dtype=part["dtype"])


def given(feed: dict[str, Any]) -> Any:
    """What a model is fed: an array, or arrays by name."""
    return as_array(feed) if "values" in feed else {name: as_array(part) for name, part in feed.items()}


def plain(result: Any) -> Any:
    """A prediction as JSON has it."""
    if hasattr(result, "to_dict"):
        return {name: plain(column) for name, column in result.to_dict(orient="list").items()}
    if isinstance(result, dict):
        return {str(name): plain(part) for name, part in result.items()}
    of_values = isinstance(result, list) and all(
        isinstance(part, int | float | str | list) for part in result
    )
    if isinstance(result, list | tuple) and not of_values:
        return {"outputs": [plain(part) for part in result]}
    array = np.asarray(result)
    if array.dtype.kind in "OS":
        return np.vectorize(text)(array).tolist()
    return array.tolist()


def text(value: Any) -> str:
    """Text, of bytes or not."""
    return value.decode() if isinstance(value, bytes) else str(value)


def last_line(error: BaseException) -> str:
    """What went wrong, for who looks at a row that is not as it should be."""
    return "".join(traceback.format_exception(error))[-2000:]


def main(work: Path) -> None:
    """Load all models that stock MLflow has a loader for, and serve them."""
    output, sys.stdout = sys.stdout, sys.stderr  # Keras draws bars there
    app, loaded = FastAPI(), {}
    apps = {}
    for name, row in json.loads((work / "trained.json").read_text()).items():
        if not row["pyfunc"]:
            continue
        found: dict[str, Any] = {}
        loaded[name] = found
        try:
            model = mlflow.pyfunc.load_model(row["uri"])
            apps[row["path"]] = model
            found["loads"] = True
            feed = row["feed"]
            if feed is None:
                continue
            found["predicted"] = plain(model.predict(given(feed)))
        except Exception as error:  # noqa: BLE001 - it is what the row tells
            found["error"] = last_line(error)
    (work / "loaded.json").write_text(json.dumps(loaded))
    for path, model in apps.items():
        app.mount(path, scoring_server.init(model))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    startup = server.startup

    async def announce(sockets: Any = None) -> None:
        await startup(sockets)
        print(server.servers[0].sockets[0].getsockname()[1], file=output, flush=True)

    server.startup = announce  # type: ignore[method-assign]
    server.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
