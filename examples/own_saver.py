"""Teach mlwrap a type of your own: saved without pickle, loaded back, and loaded by stock MLflow, too.

python examples/own_saver.py
"""

import json
from pathlib import Path

import mlflow
import numpy as np
from sklearn.datasets import load_digits

import mlwrap
from mlwrap.savers import Saved, Signature, TensorSpec


class NearestCentre:
    """Names a digit after the mean image that it is nearest to."""

    def __init__(self, names, centres):
        self.names, self.centres = names, centres

    def predict(self, images):
        distances = np.linalg.norm(np.asarray(images)[:, None] - self.centres, axis=2)
        return np.array(self.names)[distances.argmin(axis=1)]


class NearestCentreSaver:
    name = "nearest_centre"  # signs what it wrote
    format = 1
    default_name = "nearest_centre"
    frameworks = ("numpy",)  # asked only where numpy is imported

    def matches(self, value):
        return type(value).__name__ == "NearestCentre"

    def save(self, value, folder, options):
        np.savez(folder / "centres.npz", centres=value.centres)
        (folder / "names.json").write_text(json.dumps(value.names))
        pixels = value.centres.shape[1]
        return Saved(
            pyfunc={"loader_module": "own_saver"},  # its _load_pyfunc, below
            signature=Signature(inputs=(TensorSpec(dtype="float64", shape=(-1, pixels)),)),
            packages=("numpy",),
        )

    def metrics(self, value):
        return ()

    def load(self, folder, details, *, into=None, trust=False):
        with np.load(folder / "centres.npz", allow_pickle=False) as file:
            centres = file["centres"]
        return NearestCentre(json.loads((folder / "names.json").read_text()), centres)


def _load_pyfunc(path):
    """What MLflow calls with the model's folder."""
    return NearestCentreSaver().load(Path(path), {})


mlwrap.register_saver(NearestCentreSaver())


@mlwrap.tracked_training(experiment="own-saver")
def train(*, seed: int = 0):
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(len(images))[:1000]
    images, labels = images[chosen], labels[chosen]
    names = sorted(set(labels.tolist()))
    model = NearestCentre(names, np.stack([images[labels == name].mean(axis=0) for name in names]))
    return model, {"accuracy": (model.predict(images) == labels).mean()}


if __name__ == "__main__":
    model, scores = train()
    uri = train.last_run.model_uri
    images = load_digits().data[:100]
    expected = model.predict(images)
    for loaded in (mlwrap.load_model(uri), mlflow.pyfunc.load_model(uri)):
        same = (loaded.predict(images) == expected).all()
        print(
            f"{uri}: {scores['accuracy']:.1%} right, {'the same' if same else 'something else'} loaded back"
        )
