"""`dec2 status`: the nodes of a cluster."""

from __future__ import annotations

import json
import sys

import click

from dec2.cli.complaints import complains
from dec2.cli.finding import find, where
from dec2.cli.showing import gone, plain, print_table, state_of
from dec2.config import Settings
from dec2.inventory import WORKER, Node, node_name


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@complains
@where
def status(name: str | None, settings: Settings, as_json: bool) -> None:
    """Show the nodes of a cluster, and which workers the scheduler knows."""
    found = find(name, settings).required()
    inventory = found.inventory
    registered = found.provider.registered(inventory, found.engine) if inventory.scheduler else None
    if as_json:
        click.echo(json.dumps({**plain(inventory), "registered": registered}))
        return
    click.echo(f"{found.name} on {inventory.provider}, engine {inventory.engine or '?'}, {state_of(inventory)}")
    rows = [_row(found.name, node, registered or ()) for node in inventory.present]
    print_table(("node", "role", "state", "id", "address", "registered"), rows)
    if lost := gone(inventory):
        click.echo(f"gone: {', '.join(lost)}")
    if registered is None:
        click.echo("the scheduler does not answer", err=True)
        sys.exit(1)


def _row(name: str, node: Node, registered: tuple[str, ...]) -> tuple[str, ...]:
    known = any(node.registers_as in (each, each.rpartition("-")[0]) for each in registered)
    role = "scheduler, worker" if node.both else node.role
    mark = ("yes" if known else "no") if node.role == WORKER or node.both else ""
    address = node.public_address or node.private_address or ""
    return (node_name(name, node.index), role, node.state, node.id, address, mark)
