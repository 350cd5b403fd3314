"""`dec2` against the light test cloud: the EC2 provider with nodes that register at once, since nothing boots there.

python -m tests.dec2.paper up --count 3 ...
"""

from __future__ import annotations

import sys
from typing import Any

from dec2 import providers
from dec2.cli.main import main as command
from dec2.engines.base import Engine
from dec2.inventory import Inventory
from dec2.providers.base import Provider, Tell
from dec2.providers.ec2.provider import EC2Provider
from dec2.spec import ClusterSpec


class PaperNodes(EC2Provider):
    """All that talks to the API is the real thing; all that talks to a node is left out."""

    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        """Nothing boots, so nothing needs anything."""

    def registered(self, inventory: Inventory, engine: Engine) -> tuple[str, ...]:
        return tuple(node.registers_as for node in inventory.workers)

    def _recovered_credential(self, name: str) -> bytes | None:
        return None


_opened = providers.opened


def opened(name: str, region: str | None = None) -> Provider:
    return PaperNodes(region) if name == "ec2" else _opened(name, region)


def main() -> Any:
    providers.opened = opened
    sys.argv[0] = "dec2"
    return command()


if __name__ == "__main__":
    main()
