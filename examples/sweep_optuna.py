"""Optuna proposes the points, a batch at a time; each is a run of its own, and models are there to be loaded.

pip install optuna
python examples/sweep_optuna.py
"""

import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlwrap import tracked_training


@tracked_training(experiment="sweep-optuna")
def train(*, C: float = 1.0, samples: int = 400):  # noqa: N803 - scikit-learn's own name
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=C, max_iter=200).fit(images[:samples], labels[:samples])
    return {"accuracy": model.score(images[samples:], labels[samples:])}


def search(batches=3, batch=4, n_jobs=2):
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    space = {"C": optuna.distributions.FloatDistribution(1e-4, 10.0, log=True)}
    for _ in range(batches):
        trials = [study.ask(space) for _ in range(batch)]
        table = train.sweep([trial.params for trial in trials], n_jobs=n_jobs)
        for trial, point in zip(trials, table, strict=True):
            if point.status == "FINISHED":
                trial.set_user_attr("run_id", point.run_id)
                study.tell(trial, point.metrics["accuracy"])
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return study


if __name__ == "__main__":
    best = search().best_trial
    print(f"{best.value:.1%} right with C={best.params['C']:.4g}: run {best.user_attrs['run_id']}")
