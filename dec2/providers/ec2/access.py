"""Who logs in where, with which key; and which host keys the nodes may show."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dec2 import cloud_init, ssh, tags
from dec2.engines import named as engine_named
from dec2.errors import NodeUnreachable, NoSuchCluster, ProviderError
from dec2.inventory import SCHEDULER, Inventory, Node
from dec2.providers.base import Connection
from dec2.providers.ec2 import caller
from dec2.providers.ec2.api import DEBIAN_USER, EC2Api, by_cluster
from dec2.providers.ec2.preflight import Prepared
from dec2.providers.ec2.sight import Sight

_KNOWN_HOSTS = "/etc/dec2/known_hosts"


class Access:
    """The ways to the nodes of a region's clusters; connections to schedulers are kept."""

    def __init__(self, api: EC2Api, sight: Sight) -> None:
        self.api = api
        self._sight = sight
        self._sessions: dict[str, ssh.NodeShell] = {}
        self._prepared: Prepared | None = None

    def prepare(self, prepared: Prepared) -> None:
        """An `up` knows better which key it is, and which subnet."""
        self._prepared = prepared

    def folder(self, name: str) -> Path:
        """Return the cache of a cluster on this machine; its name dies with the group."""
        group = self._sight.group(name)
        if group is None:
            raise ProviderError(f"the cluster {name} has no security group; run dec2 destroy {name}")
        return caller.folder(self.api.region, group["GroupId"])

    # --- logging in

    def address(self, node: Node) -> str | None:
        """Return where to reach a node from here; in a subnet without public addresses, its private one."""
        if node.public_address is not None:
            return node.public_address
        if self._prepared is None:
            return node.private_address
        subnet = self._prepared.subnet
        # A public address comes a little later than a private one.
        return node.private_address if subnet is not None and not subnet.get("MapPublicIpOnLaunch") else None

    def login(self, inventory: Inventory, node: Node, accepted: tuple[str, ...] | None = None) -> ssh.Login:
        """Return who logs in to a node and how, with the host keys that it may show: by default, its own."""
        address = self.address(node)
        if address is None:
            raise NodeUnreachable(f"{node.id} has no address yet")
        keys = accepted if accepted is not None else self.host_keys(inventory).accepted(node, newborn=False)
        return ssh.Login(address, inventory.username or DEBIAN_USER, self._private_key(inventory), keys)

    def _private_key(self, inventory: Inventory) -> str | None:
        if self._prepared is not None:
            return self._prepared.key_file
        with contextlib.suppress(OSError):
            named = (self.folder(inventory.name) / "keypair").read_text()
            if os.path.exists(named):
                return named
        keyname = inventory.keyname or ""
        return ssh.find_private_key(keyname, self.api.key_pair(keyname), None)

    def session(self, inventory: Inventory, node: Node) -> ssh.NodeShell:
        """Return the kept connection to the scheduler's node, or a new one."""
        kept = self._sessions.get(inventory.name)
        if kept is None or not kept.alive or kept.login.host != self.address(node):
            kept = self._sessions[inventory.name] = ssh.connect(self.login(inventory, node), 20.0)
        return kept

    def keep(self, name: str, session: ssh.NodeShell) -> None:
        """Keep a connection to a cluster's scheduler."""
        self.forget_session(name)
        self._sessions[name] = session

    def forget_session(self, name: str) -> None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            kept.close()

    def shell(self, inventory: Inventory, node: Node) -> tuple[str, ...]:
        """Return the command that opens a shell on a node."""
        login = self.login(inventory, node)
        known = self.folder(inventory.name) / "known_hosts"
        known.write_text("".join(f"{login.host} {line}\n" for line in login.host_keys))
        identity = ("-i", login.key_file, "-o", "IdentitiesOnly=yes") if login.key_file else ()
        options = ("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes")
        return ("ssh", *identity, *options, f"{login.username}@{login.host}")

    @contextlib.contextmanager
    def connection(self, inventory: Inventory) -> Iterator[Connection]:
        """Lead a port of this machine to the scheduler."""
        node = inventory.scheduler
        if node is None:
            raise NoSuchCluster(f"the cluster {inventory.name} has no running scheduler; run dec2 up again")
        if self.host_keys(inventory).recorded(node) is None:
            raise NodeUnreachable(f"the scheduler of {inventory.name} is not set up yet; run dec2 up again")
        session = self.session(inventory, node)
        file = self.folder(inventory.name) / "credential.pem"
        if not file.exists():
            content = session.read(cloud_init.CREDENTIAL)
            if content is None:
                raise NodeUnreachable(f"the scheduler of {inventory.name} has no credential yet; run dec2 up again")
            caller.write_private(file, content)
        with ssh.tunnel(session, "127.0.0.1", engine_named(inventory.engine or "core").port) as address:
            yield Connection(address, str(file), False)

    # --- secrets of a cluster, found again

    def host_key(self, name: str) -> tuple[str, str]:
        """Return the single-use host key of a cluster's nodes, as this machine has it."""
        private, public = json.loads((self.folder(name) / "host_key.json").read_text())
        return str(private), str(public)

    def recovered_host_key(self, name: str) -> tuple[str, str]:
        """Return the single-use key of nodes that exist, or a new one."""
        for node in self._sight.seen(name).nodes:
            if node.state != "gone":
                found = cloud_init.host_key_in(self.api.user_data(node.id) or "")
                if found is not None:
                    return found
        return ssh.new_host_key()

    def recovered_credential(self, name: str) -> bytes | None:
        """Fetch the cluster's credential from its scheduler, where another machine brought it up."""
        inventory = self._sight.seen(name)
        node = inventory.scheduler
        # A node that has no key of its own yet has no credential either; whoever says so would bring us theirs.
        if node is None or not self.address(node) or self.host_keys(inventory).recorded(node) is None:
            return None
        return self.session(inventory, node).read(cloud_init.CREDENTIAL)

    def host_keys(self, inventory: Inventory) -> HostKeys:
        return HostKeys(self, inventory, self.folder(inventory.name))


class HostKeys:
    """Which host keys the nodes of a cluster may show.

    A node is born with a single-use key out of its user-data, which more people can read than should enter. So at the
    first connection it makes one of its own, which is written down before the node shows it: the scheduler's in a tag
    of its instance, the workers' on the scheduler's node, all of them in the cache of this machine. From then on no
    other key is accepted.
    """

    def __init__(self, access: Access, inventory: Inventory, folder: Path) -> None:
        self._access = access
        self._inventory = inventory
        self._folder = folder
        self._lock = threading.Lock()
        self._held: dict[str, str] | None = None

    def accepted(self, node: Node, *, newborn: bool) -> tuple[str, ...]:
        """Return the keys that a node may show.

        With `newborn`, which is for `rotate` alone, also the one of its birth: between writing the new key down and
        showing it, a killed `dec2 up` may have left it with that.
        """
        recorded = self.recorded(node)
        if recorded is None:
            return self.birth(node)
        return (recorded, *self.birth(node)) if newborn else (recorded,)

    def recorded(self, node: Node) -> str | None:
        """Return the key that was written down for a node, or None while it has only that of its birth."""
        with contextlib.suppress(OSError):
            known = _by_id((self._folder / "rotated").read_text())
            if node.id in known:
                return known[node.id]
        if node.role == SCHEDULER:
            wanted = {"Name": "instance-id", "Values": [node.id]}
            for instance in self._access.api.instances(by_cluster(self._inventory.name), wanted):
                named = tags.read_node(instance.get("Tags"))
                return named.host_key if named is not None else None
            return None
        return self._held_by_the_scheduler().get(node.id)

    def birth(self, node: Node) -> tuple[str, ...]:
        """Return the single-use key of a node."""
        with contextlib.suppress(OSError, ValueError):
            return (str(json.loads((self._folder / "host_key.json").read_text())[1]),)
        found = cloud_init.host_key_in(self._access.api.user_data(node.id) or "")
        return (found[1],) if found else ()

    def record(self, node: Node, public: str) -> None:
        """Write a node's new key down, before the node shows it: whoever comes later must know it."""
        if node.role == SCHEDULER:
            self._access.api.tag(node.id, {tags.HOST_KEY: public})
        else:
            script = f"mkdir -p /etc/dec2 && printf '%s\\n' \"$1\" >> {_KNOWN_HOSTS}"
            self._scheduler_session().run_as_root("sh", "-c", script, "sh", f"{node.id} {public}")
        with self._lock, open(self._folder / "rotated", "a", encoding="utf-8") as file:
            file.write(f"{node.id} {public}\n")

    def _held_by_the_scheduler(self) -> dict[str, str]:
        with self._lock:
            if self._held is None:
                self._held = {}
                with contextlib.suppress(NodeUnreachable):
                    self._held = _by_id((self._scheduler_session().read(_KNOWN_HOSTS) or b"").decode())
            return self._held

    def _scheduler_session(self) -> ssh.NodeShell:
        scheduler = self._inventory.scheduler
        if scheduler is None:
            raise NodeUnreachable(f"the scheduler of {self._inventory.name} is gone; run dec2 up again")
        return self._access.session(self._inventory, scheduler)


def _by_id(text: str) -> dict[str, str]:
    """Return the keys of `ID KEY` lines; the last one of an id counts."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {node: key for node, _, key in pairs if key}
