"""Which cluster a command is about: the named one, the configured one, or the only one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any

from dec2 import providers
from dec2.cli.options import Command, configured, described
from dec2.cluster import connected
from dec2.config import Settings, resolved
from dec2.engines import named
from dec2.engines.base import Engine
from dec2.errors import NoSuchCluster, WrongUsage
from dec2.inventory import Inventory
from dec2.providers.base import Provider
from dec2.spec import check_name


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster that somebody means, as it was seen a moment ago; it may be none."""

    name: str
    provider: Provider
    inventory: Inventory

    @property
    def engine(self) -> Engine:
        return named(self.inventory.engine or "core")

    def required(self) -> Found:
        """Return it, if there is such a cluster.

        Raises
        ------
        NoSuchCluster
            There is none.
        """
        if not self.inventory.exists:
            raise NoSuchCluster(f"there is no cluster {self.name}; dec2 list shows what there is")
        return self


def where(command: Command) -> Command:
    """Add the options that say where a cluster is, and which configuration counts; they come as one `settings`."""

    @wraps(command)
    def run(config: str | None, profile: str | None, provider: str | None, region: str | None, **more: Any) -> Any:
        settings = resolved({"provider": provider, "region": region}, file=config, profile=profile)
        return command(settings=settings, **more)

    return configured(described(only=("provider", "region"))(run))


def find(name: str | None, settings: Settings) -> Found:
    """Return the cluster of that name; without one, the configured one, or the only one there is.

    Raises
    ------
    WrongUsage
        The name can be that of none, or of several.
    NoSuchCluster
        No name was given, and there is no cluster.
    """
    name = name or settings.chosen("name")
    if name is None:
        return _only(settings)
    check_name(name)
    candidates = searched(settings)
    found = [Found(name, each, each.observe(name)) for each in candidates]
    homes = [each for each in found if each.inventory.exists]
    if len(homes) > 1:
        places = " and on ".join(each.provider.name for each in homes)
        raise WrongUsage(f"there is a cluster {name} on {places}; add --provider")
    return homes[0] if homes else found[0]


def _only(settings: Settings) -> Found:
    found = [Found(each.name, home, each) for home in searched(settings) for each in home.clusters()]
    if not found:
        raise NoSuchCluster("there is no cluster; dec2 up makes one")
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.provider.name})" for each in found)
        raise WrongUsage(f"there are several clusters, name one: {names}")
    return found[0]


def searched(settings: Settings) -> list[Provider]:
    """Return the provider that was chosen, or all that are set up on this machine."""
    provider, region = settings.chosen("provider"), settings.chosen("region")
    if provider is not None:
        return [providers.opened(provider, region)]
    found = [providers.opened("local")]
    if region is not None or providers.aws_is_set_up():
        found.append(providers.opened("ec2", region))
    return found


@contextlib.contextmanager
def client_of(found: Found) -> Iterator[Any]:
    """Give a client of a cluster."""
    with contextlib.ExitStack() as kept:
        client = connected(kept, found.inventory, found.provider, found.engine)
        kept.callback(client.close)
        yield client
