"""The ``mlwrap`` command."""

from __future__ import annotations

import datetime
import os
import sys

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import track
from rich.table import Table

from mlwrap._cli.run_target import run as run_function
from mlwrap._cli.senders import ask_senders
from mlwrap._delivery import sync as spooled
from mlwrap._delivery.backlog import is_stuck
from mlwrap._loading.cache import Cache
from mlwrap._loading.verify import verify as verify_model
from mlwrap._process.mlflow_settings import destination
from mlwrap._sender.served_run import warm_up
from mlwrap._spool.spool import spool_root
from mlwrap.config import settings
from mlwrap.errors import MlwrapError, OptionError

_HELP = {"help_option_names": ["-h", "--help"]}
_spool = click.option("--spool", help="The folder that runs wait in; by default the one of MLWRAP_SPOOL.")


@click.group(context_settings=_HELP)
@click.version_option(package_name="mlwrap")
def cli() -> None:
    """Track TensorFlow and Keras training with MLflow."""


@cli.command()
@_spool
def sync(spool: str | None) -> None:
    """Deliver waiting runs to MLflow; exits 1 if one of them could not be delivered."""
    folders = spooled.deliverable(spool)
    if folders:
        warm_up()  # patches the whole process, which is only used for this
    progress = track(
        spooled.sync_each(folders),
        "delivering",
        total=len(folders),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    done = list(progress)
    for entry in done:
        if entry.error is None:
            click.echo(f"run {entry.run_id} delivered" + (f"; {entry.note}" if entry.note else ""))
        elif entry.foreign:
            click.echo(f"passed over: {entry.error}")
        else:
            click.echo(f"not delivered: {entry.error}\n    it waits in {entry.folder}")
    delivered = sum(entry.error is None for entry in done)
    failed = sum(entry.error is not None and not entry.foreign for entry in done)
    click.echo(f"{delivered} delivered, {failed} waiting")
    sys.exit(1 if failed else 0)


@cli.command()
@_spool
def status(spool: str | None) -> None:
    """List the runs in the spool: their age, size, and why they wait."""
    runs = spooled.waiting(spool)
    if not runs:
        click.echo("nothing waits")
        return
    table = Table("key", "run", "state", "age", "size", "why")
    for entry in runs:
        age = str(datetime.timedelta(seconds=round(entry.seconds)))
        table.add_row(entry.folder.key, entry.name, entry.state, age, decimal(entry.size), entry.reason)
    Console(highlight=False, markup=False).print(table)


@cli.command()
@click.argument("keys", nargs=-1)
@_spool
@click.option("--cache", is_flag=True, help="Remove the downloaded copies of models instead.")
def clean(keys: tuple[str, ...], spool: str | None, *, cache: bool) -> None:
    """Remove delivered runs, and the runs named by KEYS, delivered or not."""
    removed = Cache().trim(0) if cache else spooled.clean(keys, spool)
    for name in removed:
        click.echo(f"removed {name}")


@cli.command()
@click.argument("uri")
@click.option("--tracking-uri", help="Where MLflow is; by default as for training.")
@click.option("--trust", is_flag=True, help="Load it with trust=True if it does not load without.")
def verify(uri: str, tracking_uri: str | None, trust: bool) -> None:
    """Load the model URI with mlwrap and with stock MLflow, and compare its prediction if one is known."""
    click.echo(verify_model(uri, tracking_uri, trust=trust))


@cli.command()
@click.argument("run_id", required=False)
@click.option("--tracking-uri", help="Where MLflow is; by default as for training.")
def show(run_id: str | None, tracking_uri: str | None) -> None:
    """Show a run from MLflow; the newest one if RUN_ID is left out."""
    from mlwrap._cli.run_summary import print_run  # noqa: PLC0415 - loads MLflow

    print_run(run_id, destination(settings(tracking_uri=tracking_uri)).tracking_uri)


@cli.command()
@click.argument("action", type=click.Choice(["status", "stop"]))
@_spool
def sender(action: str, spool: str | None) -> None:
    """List the senders of the spool, or stop them; the runs that are open go on with new ones."""
    root = spool_root(settings(spool=spool).spool)
    answers = list(ask_senders(root, action.encode()))
    if not answers:
        click.echo("no sender runs")
    for answer in answers:
        if answer is None:
            click.echo("a sender does not answer")
            continue
        age = str(datetime.timedelta(seconds=round(answer.seconds)))
        runs = "1 run" if answer.runs == 1 else f"{answer.runs} runs"
        click.echo(f"process {answer.pid}, {age} old, {runs}" + ("; it stops" if action == "stop" else ""))
    sys.exit(1 if None in answers else 0)


# All options after TARGET belong to the function, including --help.
@cli.command(context_settings={"allow_interspersed_args": False})
@click.argument("target")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE FUNCTION]...")
@click.option("--name", help="The run's name; by default the function's.")
@click.option("--experiment", help="The experiment; overrides the function's decorator.")
@click.option("--tracking-uri", help="Where MLflow is; overrides the function's decorator.")
def run(target: str, arguments: tuple[str, ...], **options: str | None) -> None:
    """Call the function TARGET, tracked.

    TARGET is package.module:function or path/to/file.py:function. The function's parameters are its options:
    'mlwrap run TARGET --help' shows them. Those of mlwrap itself stand before TARGET.
    """
    run_function(target, arguments, **options)


def main() -> None:
    """Run the command; print an error of mlwrap as a sentence and exit with status 1 or 2."""
    try:
        cli()
    except MlwrapError as error:
        click.echo(f"mlwrap: {error}", err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)  # 2 is click's status for a wrong option
    except SystemExit as end:
        if is_stuck():  # the hanging thread of an abandoned delivery would keep the command alive
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise
