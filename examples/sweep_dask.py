"""A sweep on a Dask cluster of two worker processes: each point is a run of its own, under one run for all.

pip install distributed
python examples/sweep_dask.py
"""

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlwrap import tracked_training


@tracked_training(experiment="sweep-dask")
def train(*, C: float = 1.0, samples: int = 400):  # noqa: N803 - scikit-learn's own name
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=C, max_iter=200).fit(images[:samples], labels[:samples])
    return {"accuracy": model.score(images[samples:], labels[samples:])}


def sweep():
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415 - not where the workers import this

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        return train.sweep({"C": [0.01, 0.1, 1.0], "samples": [200, 400]})


if __name__ == "__main__":
    print(sweep().frame().drop(columns=["run_id", "error"]).to_string())
