"""`dec2 run`: a script with a client of a cluster."""

from __future__ import annotations

import os
import runpy
import sys

import click

from dec2.cli.complaints import complains
from dec2.cli.finding import client_of, find, where
from dec2.config import Settings


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", default=None, help="The cluster; default: the configured one, or the only one.")
@complains
@where
def run(script: str, args: tuple[str, ...], name: str | None, settings: Settings) -> None:
    """Run SCRIPT with a client of the cluster: `distributed_core.get_client()` finds it there."""
    with client_of(find(name, settings)):
        sys.argv = [script, *args]
        sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
        runpy.run_path(script, run_name="__main__")
