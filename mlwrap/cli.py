"""The ``mlwrap`` command."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from mlwrap._capture import destination
from mlwrap._delivery import show as show_run
from mlwrap._sync import sync as sync_spool
from mlwrap.config import settings
from mlwrap.errors import MlwrapError

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
@click.version_option(package_name="mlwrap")
def cli() -> None:
    """Track TensorFlow and Keras training with MLflow."""


@cli.command()
@click.option("--spool", help="The folder that runs wait in; by default the one of MLWRAP_SPOOL.")
def sync(spool: str | None) -> None:
    """Deliver the runs that wait to MLflow."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    done = sync_spool(spool)
    for entry in done:
        console.print(entry.error or f"run {entry.run_id} delivered")
        if entry.error:
            console.print(f"    it waits in {entry.folder}")
    failed = sum(entry.error is not None for entry in done)
    console.print(f"{len(done) - failed} delivered, {failed} waiting")
    sys.exit(1 if failed else 0)


@cli.command()
@click.argument("run_id", required=False)
@click.option("--tracking-uri", help="Where MLflow is; by default as for training.")
def show(run_id: str | None, tracking_uri: str | None) -> None:
    """Show what MLflow has of a run; of the newest one where RUN_ID is left out."""
    found = show_run(run_id, destination(settings(tracking_uri=tracking_uri)).tracking_uri)
    table = Table(
        title=f"{found.name} · experiment {found.experiment} · run {found.run_id}", title_justify="left"
    )
    table.add_column("what")
    table.add_column("name")
    table.add_column("value", overflow="fold")
    table.add_row("status", "", found.status, end_section=True)
    for kind, values in (("param", found.params), ("metric", found.metrics)):
        for number, (name, value) in enumerate(values.items(), start=1):
            text = value if isinstance(value, str) else f"{value:.6g}"
            table.add_row(kind, name, text, end_section=number == len(values))
    for name, uri, status in found.models:
        table.add_row("model", name, f"{uri} {status}")
    Console(highlight=False).print(table)


def main() -> None:
    """Run the command; an error of ours is a sentence and exit status 1, not a traceback."""
    try:
        cli()
    except MlwrapError as error:
        click.echo(f"mlwrap: {error}", err=True)
        sys.exit(1)
