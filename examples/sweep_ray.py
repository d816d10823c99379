"""A sweep on Ray, here on this machine; with ``ray.init(address=...)`` on a cluster.

pip install ray
python examples/sweep_ray.py
"""

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlwrap import tracked_training


@tracked_training(experiment="sweep-ray")
def train(*, C: float = 1.0, samples: int = 400):  # noqa: N803 - scikit-learn's own name
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=C, max_iter=200).fit(images[:samples], labels[:samples])
    return {"accuracy": model.score(images[samples:], labels[samples:])}


def sweep():
    import ray  # noqa: PLC0415 - not where the workers import this
    from ray.util.joblib import register_ray  # noqa: PLC0415 - likewise

    ray.init(num_cpus=2, include_dashboard=False)
    register_ray()
    try:
        with joblib.parallel_config(backend="ray", n_jobs=2):
            return train.sweep({"C": [0.01, 0.1, 1.0], "samples": [200, 400]})
    finally:
        ray.shutdown()


if __name__ == "__main__":
    print(sweep().frame().drop(columns=["run_id", "error"]).to_string())
