"""Instances in one region as nodes."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager

from dec2 import cloud_init, ssh, tags
from dec2.engines.base import Engine
from dec2.errors import LaunchFailed, NodeUnreachable, ProviderError
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node, node_name
from dec2.plan import LaunchScheduler, LaunchWorkers
from dec2.providers.base import Connection, Provider, Question, Tell
from dec2.providers.ec2 import caller, launching, nodes, requests
from dec2.providers.ec2.access import Access
from dec2.providers.ec2.api import EC2Api
from dec2.providers.ec2.caller import write_once, write_private
from dec2.providers.ec2.preflight import Prepared, checked
from dec2.providers.ec2.sight import Sight
from dec2.spec import ClusterSpec


class EC2Provider(Provider):
    """Instances in one region."""

    name = "ec2"

    def __init__(self, region: str | None = None) -> None:
        self.api = EC2Api(region)
        self.sight = Sight(self.api)
        self.access = Access(self.api, self.sight)
        self._prepared: Prepared | None = None
        #: The address of a scheduler that was just launched.
        self._scheduler_address: dict[str, str] = {}

    # --- what exists ----------------------------------------------------------------------------

    def preflight(self, spec: ClusterSpec) -> None:
        self._prepared = checked(spec, self.api)
        self.access.prepare(self._prepared)

    def observe(self, name: str) -> Inventory:
        return self.sight.look(name)

    def refresh(self, inventory: Inventory) -> Inventory:
        return self.sight.look_at_nodes(inventory.name)

    def clusters(self) -> list[Inventory]:
        return self.sight.clusters()

    def leftovers(self, name: str) -> tuple[str, ...]:
        return self.sight.leftovers(name)

    # --- making -----------------------------------------------------------------------------------

    def ensure_group(self, spec: ClusterSpec, engine: Engine) -> None:
        prepared = self._ready
        launching.ensure_group(self.api, self.sight, spec, engine, prepared)
        folder = self.access.folder(spec.name)
        if prepared.key_file is not None:
            write_private(folder / "keypair", os.path.abspath(prepared.key_file).encode())
        if not (folder / "host_key.json").exists():
            write_once(folder / "host_key.json", json.dumps(self.access.recovered_host_key(spec.name)).encode())
        if not (folder / "credential.pem").exists():
            write_once(folder / "credential.pem", self._recovered_credential(spec.name) or engine.new_credential())

    def _recovered_credential(self, name: str) -> bytes | None:
        return self.access.recovered_credential(name)

    def launch_scheduler(self, spec: ClusterSpec, engine: Engine, action: LaunchScheduler, tell: Tell) -> None:
        commands = requests.scheduler_commands(spec, engine, both=action.both)
        named = tags.node_tags(spec.name, SCHEDULER, 0, both=action.both)
        made = self._launch(spec, engine, named, commands, None, 1)
        # The reply names the private address while the instance is still pending: the workers need not wait.
        self._scheduler_address[spec.name] = made
        tell(node_name(spec.name, 0), "launched")

    def launch_workers(self, spec: ClusterSpec, engine: Engine, action: LaunchWorkers, tell: Tell) -> None:
        scheduler = self.sight.seen(spec.name).scheduler
        host = self._scheduler_address.get(spec.name) or (scheduler.private_address if scheduler else None)
        if host is None:
            raise LaunchFailed(
                f"the scheduler of {spec.name} ended before its workers were launched; run dec2 up again"
            )
        named = tags.node_tags(spec.name, WORKER, action.indices[0], both=False)
        commands = requests.worker_commands(spec, engine, host)
        self._launch(spec, engine, named, commands, host, len(action.indices))
        for index in action.indices:
            tell(node_name(spec.name, index), "launched")

    def _launch(
        self,
        spec: ClusterSpec,
        engine: Engine,
        named: list[dict[str, str]],
        commands: dict[str, tuple[str, ...]],
        source: str | None,
        count: int,
    ) -> str:
        """Launch instances with these tags; return the first one's private address."""
        prepared, group = self._ready, self.sight.group(spec.name)
        assert group is not None
        key = self.access.host_key(spec.name)
        data = requests.user_data(spec, engine, key, prepared.bundle.sha256, commands, source)
        request = requests.run_request(spec, prepared.image, group["GroupId"], named, data, count)
        made = launching.launch(self.api, self.sight, spec.name, request)
        return str(made[0]["PrivateIpAddress"])

    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        self.access.forget_session(spec.name)
        nodes.provision(self.access, self.sight, spec, self._ready.bundle, tell)

    @property
    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise ProviderError("nothing was checked yet; this is a mistake in dec2")
        return self._prepared

    # --- asking -----------------------------------------------------------------------------------

    def converse(self, inventory: Inventory, engine: Engine, question: Question, timeout_s: float) -> str | None:
        node = inventory.scheduler
        if node is None:
            return None
        argv = question(requests.place(engine, f"127.0.0.1:{engine.port}"))
        try:
            session = self.access.session(inventory, node)
            return session.run("sudo", "-u", "dec2", *argv, timeout_s=timeout_s, check=False)
        except NodeUnreachable:
            self.access.forget_session(inventory.name)
            return None

    def log_tail(self, inventory: Inventory, node: Node, lines: int) -> str:
        script = (
            f"cat {cloud_init.HOME}/phase 2>/dev/null; tail -n {lines} /var/log/cloud-init-output.log; "
            f"journalctl --no-pager -q -n {lines} -u dec2-bootstrap -u dscheduler -u dworker"
        )
        try:
            with ssh.connect(self.access.login(inventory, node), 5.0) as session:
                text = session.run_as_root("sh", "-c", script, check=False)
                return "\n".join(text.splitlines()[-2 * lines :])
        except NodeUnreachable as error:
            return str(error)

    # --- ending -----------------------------------------------------------------------------------

    def remove(self, inventory: Inventory, ids: tuple[str, ...]) -> None:
        if inventory.scheduler is None or inventory.scheduler.id in ids:
            self.access.forget_session(inventory.name)
        self.api.terminate(list(ids), inventory.name)
        self.sight.forget_instances(inventory.name, ids)

    def delete_group(self, inventory: Inventory) -> None:
        self.access.forget_session(inventory.name)
        if inventory.group is not None:
            self.api.delete_group(inventory.group, inventory.name)
            caller.forget(self.api.region, inventory.group)
        self.sight.forget(inventory.name, deleted=inventory.group is not None)

    # --- reaching ---------------------------------------------------------------------------------

    def connection(self, inventory: Inventory) -> AbstractContextManager[Connection]:
        return self.access.connection(inventory)

    def shell(self, inventory: Inventory, node: Node) -> tuple[str, ...]:
        return self.access.shell(inventory, node)
