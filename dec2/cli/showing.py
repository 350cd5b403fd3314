"""Clusters as people and as programs read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from dec2.inventory import Inventory, node_name


def print_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table without lines."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False)


def state_of(inventory: Inventory) -> str:
    """Return what a cluster is, in a word or with what mends it."""
    if inventory.scheduler is not None:
        return "up"
    if any(node.state in ("stopping", "stopped") for node in inventory.present):
        return "stopped"
    return "half-made or half-destroyed; dec2 up or dec2 destroy mends it"


def gone(inventory: Inventory) -> list[str]:
    """Return the names of the nodes that were lost or ended, as far as the provider still knows them."""
    return [node_name(inventory.name, node.index) for node in inventory.lost]


def plain(inventory: Inventory) -> dict[str, Any]:
    """Return a cluster as JSON takes it."""
    return {
        "name": inventory.name,
        "provider": inventory.provider,
        "engine": inventory.engine,
        "state": state_of(inventory),
        "nodes": [
            {
                "id": node.id,
                "role": node.role,
                "index": node.index,
                "state": node.state,
                "private_address": node.private_address,
                "public_address": node.public_address,
            }
            for node in inventory.present
        ],
        "gone": gone(inventory),
    }
