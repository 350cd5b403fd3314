"""`dec2 ssh`: a shell on a node."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from dec2.cli.complaints import complains
from dec2.cli.finding import find, where
from dec2.config import Settings
from dec2.errors import WrongUsage


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node", type=click.IntRange(0), default=0)
@click.option("--name", default=None, help="The cluster; default: the configured one, or the only one.")
@complains
@where
def ssh(node: int, name: str | None, settings: Settings) -> NoReturn:
    """Open a shell on a node: 0 is the scheduler's, 1, 2, ... are workers."""
    cluster = find(name, settings)
    present = [each for each in cluster.inventory.present if each.alive]
    found = next((each for each in present if each.index == node), None)
    if found is None:
        have = ", ".join(str(each.index) for each in present) or "none"
        raise WrongUsage(f"{cluster.name} has no node {node}; it has {have}")
    argv = cluster.provider.shell(cluster.inventory, found)
    sys.stdout.flush()
    os.execvp(argv[0], argv)
