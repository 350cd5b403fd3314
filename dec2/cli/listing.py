"""`dec2 list`: the clusters there are."""

from __future__ import annotations

import json

import click

from dec2.cli.complaints import complains
from dec2.cli.finding import searched, where
from dec2.cli.showing import plain, print_table, state_of
from dec2.config import Settings


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@complains
@where
def listing(settings: Settings, as_json: bool) -> None:
    """List the clusters."""
    found = [inventory for each in searched(settings) for inventory in each.clusters()]
    if as_json:
        click.echo(json.dumps([plain(inventory) for inventory in found]))
        return
    if not found:
        click.echo("no clusters")
        return
    rows = [
        (each.name, each.provider, each.engine or "?", str(len(each.present)), state_of(each)) for each in found
    ]  # fmt: skip
    print_table(("name", "provider", "engine", "instances", "state"), rows)
