"""P18: SavedModels of many files over HTTP; and Estimator checkpoints, on the TensorFlow that has Estimators."""

from __future__ import annotations

from pathlib import Path

from harness import NOTHING, OURS, TIMED, Server, against, argument, folder, head, interleaved, row

REPEATS = argument(1, 2)
FILES = argument(2, 200)
ESTIMATOR = Path(__file__).parents[1] / ".venv-estimator/bin/python"
SAVED_MODEL = """
import json, os, pathlib, sys, tempfile
import mlflow, tensorflow as tf
uri, files = sys.argv[1], int(sys.argv[2])
made = pathlib.Path(tempfile.mkdtemp(dir="."))
class Module(tf.Module):
    def __init__(self):
        self.words = [tf.saved_model.Asset(str(word(number))) for number in range(files)]
        self.weight = tf.Variable(2.0)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def __call__(self, x):
        return self.weight * x
def word(number):
    path = made / f"{number}.txt"
    path.write_text("x" * 10_000)
    return path.resolve()
module = Module()
tf.saved_model.save(module, str(made / "saved"))
"""
MAKE = {  # five calls each: a worker of a server answers its first upload 0.2 s late, and may be met late
    OURS: """
import mlwrap
mlwrap.configure(experiment="bench", tracking_uri=uri, deadline=60)
def log(value):
    with mlwrap.model_run("r") as run:
        run.log_model(value)
    assert run.models[0].status == "READY", run.models
found = {"module": timed(lambda: log(module), 5), "folder": timed(lambda: log(made / "saved"), 5)}
print(json.dumps(found))
""",
    "MLflow": """
mlflow.set_tracking_uri(uri); mlflow.set_experiment("bench")
pinned = [f"tensorflow=={tf.__version__}"]
def module_logged():
    with mlflow.start_run():
        mlflow.tensorflow.log_model(module, name="model", pip_requirements=pinned)
def folder_logged():
    with mlflow.start_run():
        mlflow.log_artifacts(str(made / "saved"), "saved_model")
print(json.dumps({"module": timed(module_logged, 5), "folder": timed(folder_logged, 5)}))
""",
}
CHECKPOINT = """
import json, os, sys, tempfile
import numpy as np, tensorflow as tf
uri = os.environ["STORE"] if sys.argv[1] == "sqlite" else sys.argv[1]
features = {"x": np.random.default_rng(0).normal(size=(256, 20)).astype("float32")}
def data():
    return tf.data.Dataset.from_tensor_slices((features, features["x"][:, 0] > 0)).repeat().batch(32)
estimator = tf.estimator.DNNClassifier(
    hidden_units=(512, 512), feature_columns=[tf.feature_column.numeric_column("x", (20,))],
    model_dir=tempfile.mkdtemp(dir="."))
estimator.train(data, steps=20)
"""
MAKE_CHECKPOINT = {
    OURS: """
import mlwrap
def log():
    with mlwrap.model_run("r", experiment="bench", tracking_uri=uri) as run:
        run.log_model(estimator)
    assert run.models[0].status == "READY", run.models
print(json.dumps({"seconds": timed(log, 3)}))
""",
    "MLflow": """
import mlflow
mlflow.set_tracking_uri(uri); mlflow.set_experiment("bench")
def log():
    with mlflow.start_run():
        mlflow.log_artifacts(estimator.model_dir, "checkpoint")
print(json.dumps({"seconds": timed(log, 3)}))
""",
}


def main() -> None:
    """Measure, and print."""
    with folder() as here:
        head(
            "Models of many files",
            f"A `tf.Module` with {FILES} asset files of 10 kB: saved and logged; and its SavedModel, which is in a "
            "folder already, logged from there. With mlwrap each is a LoggedModel, READY, with a checksum of every file.",
        )
        with Server(here) as one, Server(here, None) as four:
            stores = {"HTTP, one worker": one.uri, "HTTP, default server": four.uri}
            sources = {name: TIMED + SAVED_MODEL + code for name, code in MAKE.items()}
            for store, uri in stores.items():
                found = interleaved(REPEATS, sources, uri, str(FILES))
                folder_, module = (
                    f"a SavedModel folder of {FILES} files, {store}",
                    "`mlflow.tensorflow.log_model`",
                )
                first = store == "HTTP, one worker"
                against(
                    "P18",
                    folder_,
                    found,
                    "MLflow",
                    key="folder",
                    called="`log_artifacts`",
                    most=0.333,
                    short=f"{FILES} files, HTTP: log_artifacts" if first else "",
                )
                against(
                    "P18",
                    f"a `tf.Module` with {FILES} assets, {store}",
                    found,
                    "MLflow",
                    key="module",
                    called=f"{module}, requirements given",
                    most=0.333,
                )
            checkpoints({"sqlite": "sqlite", **stores})


def checkpoints(stores: dict[str, str]) -> None:
    """An Estimator's checkpoint."""
    if not ESTIMATOR.exists():
        told = "not measured: there is no `.venv-estimator`; `make setup` makes it"
        row("models", "an Estimator's checkpoint", told, NOTHING, NOTHING, NOTHING)
        return
    sources = {name: TIMED + CHECKPOINT + code for name, code in MAKE_CHECKPOINT.items()}
    for store, uri in stores.items():
        found = interleaved(min(2, REPEATS), sources, uri, interpreter=ESTIMATOR)
        what = f"an Estimator's checkpoint, {store}, TensorFlow 2.15"
        against("models", what, found, "MLflow", called="`log_artifacts(model_dir)` by hand")


if __name__ == "__main__":
    main()
