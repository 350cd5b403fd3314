"""What happens on EC2 nodes over SSH: addresses awaited, wheels pushed, host keys rotated, the credential brought."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dec2 import cloud_init, ssh, tags
from dec2.errors import LaunchFailed, NodeUnreachable
from dec2.inventory import SCHEDULER, Inventory, Node, node_name
from dec2.package import MANIFEST, Bundle
from dec2.providers.base import Tell
from dec2.providers.ec2_api import by_cluster, polled
from dec2.spec import ClusterSpec

if TYPE_CHECKING:
    from dec2.providers.ec2 import EC2Provider

PARALLEL_SESSIONS = 32
_KNOWN_HOSTS = "/etc/dec2/known_hosts"
#: Kept apart from where sshd reads it, so that the node has one and the same new key, however often it is asked.
_MAKE_KEY = """set -e
umask 077
mkdir -p -m 755 /etc/dec2
key=/etc/dec2/host_key
test -s $key.pub || { rm -f $key; ssh-keygen -q -t ed25519 -N '' -C '' -f $key; }
cat $key.pub
"""
_SHOW_KEY = """set -e
install -m 600 /etc/dec2/host_key /etc/ssh/ssh_host_ed25519_key
install -m 644 /etc/dec2/host_key.pub /etc/ssh/ssh_host_ed25519_key.pub
systemctl restart ssh || systemctl restart sshd
"""


def await_addresses(provider: EC2Provider, spec: ClusterSpec) -> Inventory:
    """Return the inventory once every node alive runs and has an address: one call for all, ever more slowly."""

    def attempt() -> Inventory | None:
        inventory = provider.observe(spec.name)
        alive = [node for node in inventory.nodes if node.alive]
        return inventory if all(node.state == "running" and provider.address(node) for node in alive) else None

    text = "the instances do not come up; look at them in the console, or run dec2 destroy"
    found: Inventory = polled(attempt, spec.timeout_s, text, LaunchFailed)
    return found


class HostKeys:
    """Which host keys the nodes of a cluster may show.

    A node is born with a single-use key out of its user-data, which more people can read than should enter. So at the
    first connection it makes one of its own, which is written down before the node shows it: the scheduler's in a tag
    of its instance, the workers' on the scheduler's node, all of them in the cache of this machine. From then on no
    other key is accepted.
    """

    def __init__(self, provider: EC2Provider, inventory: Inventory, folder: Path) -> None:
        self._provider = provider
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
            for instance in self._provider.api.instances(by_cluster(self._inventory.name), wanted):
                named = tags.read_node(instance.get("Tags"))
                return named.host_key if named is not None else None
            return None
        return self._held_by_the_scheduler().get(node.id)

    def birth(self, node: Node) -> tuple[str, ...]:
        """Return the single-use key of a node."""
        with contextlib.suppress(OSError, ValueError):
            return (str(json.loads((self._folder / "host_key.json").read_text())[1]),)
        found = cloud_init.host_key_in(self._provider.api.user_data(node.id) or "")
        return (found[1],) if found else ()

    def record(self, node: Node, public: str) -> None:
        """Write a node's new key down, before the node shows it: whoever comes later must know it."""
        if node.role == SCHEDULER:
            self._provider.api.tag(node.id, {tags.HOST_KEY: public})
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
        return self._provider.session(self._inventory, scheduler)


def _by_id(text: str) -> dict[str, str]:
    """Return the keys of `ID KEY` lines; the last one of an id counts."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {node: key for node, _, key in pairs if key}


def push_bundle(session: ssh.NodeShell, bundle: Bundle) -> None:
    """Bring the wheels to the scheduler's node, once: from there the workers fetch them."""
    ready = f"{cloud_init.WHEELS}/READY"
    if session.run("sh", "-c", f"cat {ready} 2>/dev/null || true").strip() == bundle.sha256:
        return
    for name, path in bundle.files.items():
        session.put(path, f"{cloud_init.WHEELS}/{name}", 0o644)
    session.put(bundle.manifest.encode(), f"{cloud_init.WHEELS}/{MANIFEST}", 0o644)
    session.put(f"{bundle.sha256}\n".encode(), ready, 0o644)


def rotate(session: ssh.NodeShell, node: Node, keys: HostKeys) -> ssh.NodeShell:
    """Replace the single-use host key of a node that still shows it; return a connection under its own one.

    The credential travels only over a connection that the new key, made on the node, vouches for.

    Raises
    ------
    NodeUnreachable
        Who shows the single-use key does not have the key that was written down for the node.
    """
    if session.host_key not in keys.birth(node):
        return session
    public = " ".join(session.run_as_root("sh", "-c", _MAKE_KEY).split()[:2])
    recorded = keys.recorded(node)
    if recorded is None:
        keys.record(node, public)
    elif recorded != public:
        raise NodeUnreachable(
            f"{session.login.host} shows the host key of its birth and does not have the one that it made since; "
            "somebody may be in between: end the node in the console, and run dec2 up again"
        )
    session.run_as_root("sh", "-c", _SHOW_KEY)
    session.close()
    return ssh.connect(dataclasses.replace(session.login, host_keys=(public,)), 30.0)


def bring_credential(session: ssh.NodeShell, credential: bytes) -> None:
    """Write the credential, once: the unit then gives it to the engine's user, and it must stay that user's."""
    script = f"test -s {cloud_init.CREDENTIAL} && echo there || true"
    if session.run_as_root("sh", "-c", script).strip() != "there":
        session.put(credential, cloud_init.CREDENTIAL, 0o600)


def provision_workers(
    provider: EC2Provider, spec: ClusterSpec, inventory: Inventory, keys: HostKeys, credential: bytes, tell: Tell
) -> None:
    """Bring the credential to the workers, many at a time; a node that fails is named when it does not register."""
    deadline = time.monotonic() + spec.timeout_s

    def bring(node: Node) -> None:
        name = node_name(spec.name, node.index)
        tell(name, "booting")
        try:
            left_s = max(5.0, deadline - time.monotonic())
            accepted = keys.accepted(node, newborn=True)
            session = ssh.connect(provider.login(inventory, node, accepted), left_s)
            try:
                tell(name, "connected")
                session = rotate(session, node, keys)
                bring_credential(session, credential)
                tell(name, "installing")
            finally:
                session.close()
        except NodeUnreachable as error:
            tell(name, f"unreachable: {error}")

    workers = [node for node in inventory.workers if node.role != SCHEDULER]
    if workers:
        with ThreadPoolExecutor(min(PARALLEL_SESSIONS, len(workers))) as pool:
            list(pool.map(bring, workers))
