"""The test cloud: an EC2 API on loopback whose instances really boot.

moto answers the EC2 API.  A WSGI layer in front of it adds what moto leaves out (`rules`), breaks it on request
(`weather`, `boots`) and ties each instance to a machine (`lifecycle`).  There are two kinds of machines
behind one interface:

    TestCloud(machines=False)   machines on paper; no root needed, nothing leaves this process (`paper`)
    TestCloud()                 systemd-nspawn machines with their own address, root file system, systemd, sshd and
                                cloud-init, all inside one throw-away namespace without an uplink (`machine`, `region`)

The floors, from the ground up; a file imports only from lines above its own:

    errors
    host  cache                 what this computer must offer; folders that are made once
    image  wheelhouse           the root file system of the machines; wheels for machines without a route
    images                      the public images that the API shows
    request  account            an API call as data; the only door to moto's own objects
    rules  prices               the rules that moto leaves out, by subject; a few prices
    weather  boots  lifecycle   faults on demand; how launches end; the states of instances
    paper                       machines on paper
    firewall  region  cage      security groups as nft rules; the network of the machines; their limits
    runs                        folders for the disks of machines, and what killed clouds left
    machine                     systemd-nspawn machines
    listener  clients           a port for the API; boto3 clients of it
    server                      the WSGI layer
    cloud                       the front that tests use
    isolation                   the throw-away namespace
    plugin  __main__            fixtures for pytest; the command
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto_fixtures.errors import TestCloudError

if TYPE_CHECKING:
    from moto_fixtures.cloud import TestCloud

__all__ = ["TestCloud", "TestCloudError"]


def __getattr__(name: str) -> Any:
    # moto takes a second to import, and `import moto_fixtures.plugin` happens in every run of pytest.
    if name == "TestCloud":
        from moto_fixtures.cloud import TestCloud

        return TestCloud
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
