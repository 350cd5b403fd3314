"""`dec2 destroy`: nothing of a cluster is left."""

from __future__ import annotations

import sys

import click

from dec2 import apply
from dec2.cli.complaints import complains
from dec2.cli.finding import find, where
from dec2.config import Settings
from dec2.errors import WrongUsage


@click.command()
@click.argument("name", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@complains
@where
def destroy(name: str | None, settings: Settings, yes: bool) -> None:
    """End a cluster, and prove that nothing of it is left. Without NAME: the configured one, or the only one."""
    found = find(name, settings)
    if not found.inventory.exists:
        click.echo(f"{found.name}: nothing there")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage(f"destroy asks before it ends {found.name}, and there is no terminal; add -y")
        count = len(found.inventory.present)
        click.confirm(f"Destroy {found.name} ({count} instances on {found.provider.name})?", abort=True)
    apply.tear_down(found.name, found.provider, lambda text: click.echo(f"{found.name}: {text}"))
    click.echo(f"{found.name}: destroyed, nothing is left")
