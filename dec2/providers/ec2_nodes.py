"""What happens on EC2 nodes over SSH: addresses awaited, wheels pushed, host keys rotated, the credential brought."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dec2 import cloud_init, ssh, tags
from dec2.errors import NodeUnreachable
from dec2.inventory import SCHEDULER, Inventory, Node, node_name
from dec2.package import MANIFEST, Bundle
from dec2.providers.base import Tell
from dec2.providers.ec2_api import by_cluster, polled
from dec2.spec import ClusterSpec

if TYPE_CHECKING:
    from dec2.providers.ec2 import EC2Provider

PARALLEL_SESSIONS = 32
_KNOWN_HOSTS = "/etc/dec2/known_hosts"
_KEY = "/etc/ssh/ssh_host_ed25519_key"


def await_addresses(provider: EC2Provider, spec: ClusterSpec) -> Inventory:
    """Return the inventory once every node alive runs and has an address: one call for all, ever more slowly."""

    def attempt() -> Inventory | None:
        inventory = provider.observe(spec.name)
        alive = [node for node in inventory.nodes if node.alive]
        return inventory if all(node.state == "running" and node.public_address for node in alive) else None

    found: Inventory = polled(attempt, spec.timeout_s, "the instances do not come up; look at them in the console")
    return found


class HostKeys:
    """The rotated host keys of the workers: held by the scheduler's node, and cached here."""

    def __init__(self, provider: EC2Provider, scheduler_session: ssh.NodeShell, name: str) -> None:
        self.provider = provider
        self.scheduler_session = scheduler_session
        self.name = name

    def record(self, node: Node, public: str) -> None:
        """Write a node's new key down, before the node uses it: whoever comes later must know it."""
        if node.role == SCHEDULER:
            self.provider.api.tag(node.id, {tags.HOST_KEY: public})
            _remember(self.provider._folder(self.name), node.id, public)
            return
        line = f"{node.id} {public}"
        script = f"mkdir -p /etc/dec2 && printf '%s\\n' \"$1\" >> {_KNOWN_HOSTS}"
        self.scheduler_session.run("sudo", "sh", "-c", script, "sh", line)
        _remember(self.provider._folder(self.name), node.id, public)


def known_keys(provider: EC2Provider, inventory: Inventory, node: Node, folder: Path) -> tuple[str, ...]:
    """Return the host keys that a node may show: its rotated one, or, before that, the single-use one of its birth."""
    with contextlib.suppress(OSError):
        for line in reversed((folder / "rotated").read_text().splitlines()):
            if line.startswith(f"{node.id} "):
                # Between writing the new key down and using it, the node shows the old one.
                return (line.partition(" ")[2], *_single_use(provider, node, folder))
    if node.role == SCHEDULER:
        for instance in provider.api.instances(
            by_cluster(inventory.name), {"Name": "instance-id", "Values": [node.id]}
        ):
            named = tags.read_node(instance.get("Tags"))
            if named is not None and named.host_key:
                return (named.host_key, *_single_use(provider, node, folder))
    elif inventory.scheduler is not None and inventory.scheduler.id != node.id:
        with contextlib.suppress(NodeUnreachable):
            held = provider._session(inventory, inventory.scheduler).read(_KNOWN_HOSTS) or b""
            for line in reversed(held.decode().splitlines()):
                if line.startswith(f"{node.id} "):
                    return (line.partition(" ")[2], *_single_use(provider, node, folder))
    return _single_use(provider, node, folder)


def _single_use(provider: EC2Provider, node: Node, folder: Path) -> tuple[str, ...]:
    import json

    with contextlib.suppress(OSError, ValueError):
        return (str(json.loads((folder / "host_key.json").read_text())[1]),)
    found = cloud_init.host_key_in(provider.api.user_data(node.id) or "")
    return (found[1],) if found else ()


def push_bundle(session: ssh.NodeShell, bundle: Bundle) -> None:
    """Bring the wheels to the scheduler's node, once: from there the workers fetch them."""
    ready = f"{cloud_init.WHEELS}/READY"
    if session.run("sh", "-c", f"cat {ready} 2>/dev/null || true").strip() == bundle.sha256:
        return
    for name, path in bundle.files.items():
        session.put(path, f"{cloud_init.WHEELS}/{name}", 0o644)
    session.put(bundle.manifest.encode(), f"{cloud_init.WHEELS}/{MANIFEST}", 0o644)
    session.put(f"{bundle.sha256}\n".encode(), ready, 0o644)


def rotate(provider: EC2Provider, session: ssh.NodeShell, node: Node, keys: HostKeys, name: str) -> ssh.NodeShell:
    """Replace the single-use host key, which user-data shows to whoever may read it; return a new connection.

    The credential travels only over a connection that the new key, made on the node, vouches for.
    """
    done = f"{cloud_init.HOME}/rotated"
    if not session.run("sh", "-c", f"cat {done} 2>/dev/null || true").strip():
        fresh = f"{_KEY}.dec2"
        make = f"test -s {fresh} || ssh-keygen -q -t ed25519 -N '' -C '' -f {fresh}; cat {fresh}.pub"
        public = " ".join(session.run("sudo", "sh", "-c", make).split()[:2])
        keys.record(node, public)
        install = f"mv {fresh} {_KEY} && mv {fresh}.pub {_KEY}.pub && systemctl restart ssh && touch {done}"
        session.run("sudo", "sh", "-c", f"{install} && echo yes > {done}")
        session.close()
        login = ssh.Login(session.login.host, session.login.username, session.login.key_file, (public,))
        return ssh.connect(login, 30.0)
    return session


def bring_credential(session: ssh.NodeShell, credential: bytes) -> None:
    """Write the credential, once: the unit then gives it to the engine's user, and it must stay that user's."""
    if session.run("sudo", "sh", "-c", f"test -s {cloud_init.CREDENTIAL} && echo there || true").strip() != "there":
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
            session = ssh.connect(provider.login(inventory, node), left_s)
            try:
                tell(name, "connected")
                session = rotate(provider, session, node, keys, spec.name)
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


def _remember(folder: Path, node: str, public: str) -> None:
    with open(folder / "rotated", "a", encoding="utf-8") as file:
        file.write(f"{node} {public}\n")
