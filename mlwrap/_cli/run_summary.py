"""``mlwrap show``: print a run in MLflow as a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from mlwrap._mlflow.queries import Queries, RunModel, run_outputs, with_unsaved
from mlwrap.errors import Refused

# The use of each form of a model.
_FORMS = {
    "training": "load_model() gives the model back, to train on",
    "serving": "mlflow.pyfunc predicts without the training's code",
    "weights": "load_model(uri, into=model) restores them into a model that your code builds",
}


def print_run(run_id: str | None, tracking_uri: str | None) -> None:
    """Print a run; if ``run_id`` is ``None``, the newest one that mlwrap logged.

    Raises:
        Refused: No such run exists.
        Unreachable: The server did not answer.
    """
    client = Queries(tracking_uri)
    run = client.get_run(run_id) if run_id else client.newest_run()
    if run is None:
        raise Refused(f"{client.tracking_uri} holds no run that mlwrap logged.")
    experiment = client.experiment_name(run.info.experiment_id)
    title = f"{run.info.run_name} · experiment {experiment} · run {run.info.run_id}"
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("name")
    table.add_column("value", overflow="fold")
    table.add_row("status", "", run.info.status, end_section=True)
    for kind, values in (("param", run.data.params), ("metric", run.data.metrics)):
        for number, (name, value) in enumerate(sorted(values.items()), start=1):
            text = value if isinstance(value, str) else f"{value:.6g}"
            table.add_row(kind, name, text, end_section=number == len(values))
    for model in with_unsaved(client, run, run_outputs(client, run)):
        table.add_row("model", model.label, "\n".join(_model_lines(model)))
    Console(highlight=False, markup=False).print(table)


def _model_lines(model: RunModel) -> Iterator[str]:
    """Yield the URI, status, forms and verification of a model, one per line."""
    entity = model.entity
    forms, verified, error = (entity.tags.get(f"mlwrap.{tag}", "") for tag in ("forms", "verified", "error"))
    yield f"{entity.model_uri} {entity.status.value}"
    if error:
        yield f"not saved: {error}"
        return
    for form in filter(None, forms.split(", ")):
        yield f"{form} form: {_FORMS.get(form, 'of a later mlwrap')}"
    if verified == "ok":
        yield "verified: every form loads, and predicts as before it was saved"
    else:
        yield f"verified: {verified}" if verified else "not verified"
