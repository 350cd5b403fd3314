"""What happens on EC2 nodes over SSH: addresses awaited, wheels pushed, host keys rotated, the credential brought."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future, ThreadPoolExecutor

from dec2 import cloud_init, ssh
from dec2.errors import LaunchFailed, NodeUnreachable
from dec2.inventory import SCHEDULER, Inventory, Node, node_name
from dec2.package import MANIFEST, Bundle
from dec2.providers.base import Tell
from dec2.providers.ec2.access import Access, HostKeys
from dec2.providers.ec2.api import polled
from dec2.providers.ec2.sight import Sight
from dec2.spec import ClusterSpec

PARALLEL_SESSIONS = 32
_FIRST_POLL_S = 0.2
_POLL_MAX_S = 5.0
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
#: What was drained or stopped before begins again; a node that never came so far is still on its way by itself.
_WAKE = "if test -e /opt/dec2/started; then systemctl start --no-block {units}; fi"


def provision(access: Access, sight: Sight, spec: ClusterSpec, bundle: Bundle, tell: Tell) -> None:
    """Bring the scheduler's node the wheels and the credential, then every worker the credential.

    A worker that does not come in time is left to whoever counts the registered ones.

    Raises
    ------
    LaunchFailed, NodeUnreachable
        The scheduler's node does not come up: without it nothing works.
    """
    deadline = time.monotonic() + spec.timeout_s
    own = node_name(spec.name, 0)
    inventory = _await_scheduler(access, sight, spec)
    scheduler = inventory.scheduler
    assert scheduler is not None
    tell(own, "booting")
    keys = access.host_keys(inventory)
    login = access.login(inventory, scheduler, keys.accepted(scheduler, newborn=True))
    session = ssh.connect(login, max(5.0, deadline - time.monotonic()))
    tell(own, "pushing")
    session = rotate(session, scheduler, keys)
    access.keep(spec.name, session)
    push_bundle(session, bundle)
    credential = (access.folder(spec.name) / "credential.pem").read_bytes()
    bring_credential(session, credential)
    wake(session, ("dscheduler", "dworker") if scheduler.both else ("dscheduler",))
    tell(own, "installing")
    _provision_workers(access, sight, spec, keys, credential, tell)


def _await_scheduler(access: Access, sight: Sight, spec: ClusterSpec) -> Inventory:
    def attempt() -> Inventory | None:
        inventory = sight.look_at_nodes(spec.name)
        node = inventory.scheduler
        if node is None:
            raise LaunchFailed(f"the scheduler of {spec.name} ended while it booted; run dec2 up again")
        return inventory if node.state == "running" and access.address(node) else None

    text = f"the scheduler of {spec.name} does not run after {spec.timeout_s:g} s; run dec2 up again, or dec2 destroy"
    found: Inventory = polled(attempt, spec.timeout_s, text, LaunchFailed)
    return found


def _provision_workers(
    access: Access, sight: Sight, spec: ClusterSpec, keys: HostKeys, credential: bytes, tell: Tell
) -> None:
    """Bring each worker the credential as soon as it has an address, many at a time; one call looks for all."""
    deadline = time.monotonic() + spec.patience_s

    def bring(inventory: Inventory, node: Node) -> None:
        name = node_name(spec.name, node.index)
        tell(name, "booting")
        try:
            login = access.login(inventory, node, keys.accepted(node, newborn=True))
            session = ssh.connect(login, max(5.0, deadline - time.monotonic()))
            try:
                tell(name, "connected")
                session = rotate(session, node, keys)
                bring_credential(session, credential)
                wake(session, ("dworker",))
                tell(name, "installing")
            finally:
                session.close()
        except NodeUnreachable as error:
            tell(name, f"unreachable: {error}")

    begun: dict[str, Future[None]] = {}
    pause_s = _FIRST_POLL_S
    with ThreadPoolExecutor(PARALLEL_SESSIONS) as pool:
        while True:
            inventory = sight.look_at_nodes(spec.name)
            workers = [node for node in inventory.workers if node.role != SCHEDULER]
            for node in workers:
                if node.id not in begun and node.state == "running" and access.address(node):
                    begun[node.id] = pool.submit(bring, inventory, node)
            if all(node.id in begun for node in workers) or time.monotonic() >= deadline:
                break
            time.sleep(pause_s)
            pause_s = min(_POLL_MAX_S, pause_s * 1.4)
    for each in begun.values():
        each.result()


def wake(session: ssh.NodeShell, units: tuple[str, ...]) -> None:
    """Start the engine's units again on a node where they ran before."""
    session.run_as_root("sh", "-c", _WAKE.format(units=" ".join(units)))


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
