"""EC2 as a provider: what exists is what the tags say, and every launch has a derived client token."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from dec2 import cloud_init, ssh, tags
from dec2.engines.base import Capacity, Engine, Place
from dec2.errors import LaunchFailed, NodeUnreachable, NoSuchCluster, NotGone, ProviderError, WrongUsage
from dec2.inventory import SCHEDULER, WORKER, Inventory, Node
from dec2.package import Bundle, bundle
from dec2.plan import LaunchScheduler, LaunchWorkers
from dec2.providers import ec2_caller, ec2_nodes
from dec2.providers.base import Connection, Provider, Tell
from dec2.providers.ec2_api import (
    DEBIAN_OWNER,
    DEBIAN_USER,
    VISIBLE_WITHIN_S,
    EC2Api,
    by_cluster,
    code_of,
    polled,
)
from dec2.providers.ec2_caller import caller_cidr, write_once, write_private
from dec2.spec import ClusterSpec

_STATES = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "gone",
    "terminated": "gone",
}
_USERS = {"ubuntu": "ubuntu", "al2023": "ec2-user", "amzn": "ec2-user", "debian": DEBIAN_USER}
_GENERATIONS_MAX = 50


class EC2Provider(Provider):
    """Instances in one region."""

    name = "ec2"

    def __init__(self, region: str | None = None) -> None:
        self.api = EC2Api(region)
        self._groups: dict[str, dict[str, Any]] = {}
        #: The clusters as they were last seen, and the address of a scheduler that was just launched.
        self._seen: dict[str, Inventory] = {}
        self._scheduler_address: dict[str, str] = {}
        # What this process made, by cluster: EC2 may not show it yet.
        self._made_groups: dict[str, dict[str, Any]] = {}
        self._made_instances: dict[str, dict[str, dict[str, Any]]] = {}
        self._sessions: dict[str, ssh.NodeShell] = {}
        self._spec: ClusterSpec | None = None
        self._image: dict[str, Any] = {}
        self._key_file: str | None = None
        self._subnet: dict[str, Any] | None = None

    # --- what exists ----------------------------------------------------------------------------

    def preflight(self, spec: ClusterSpec) -> None:
        assert spec.keyname is not None
        self._spec = spec
        public = self.api.key_pair(spec.keyname)
        self._key_file = ssh.find_private_key(spec.keyname, public, spec.keypair)
        architecture = self.api.architecture(spec.type)
        if spec.scheduler_type is not None and self.api.architecture(spec.scheduler_type) != architecture:
            raise WrongUsage(f"{spec.scheduler_type} and {spec.type} are of different architectures; choose two alike")
        self._image = self.api.image(spec.ami, architecture)
        if self._image.get("Architecture", architecture) != architecture:
            text = f"the image {self._image['ImageId']} is for {self._image['Architecture']}, and {spec.type} is not"
            raise WrongUsage(f"{text}; choose another --ami or --type")
        if spec.subnet is not None:
            self._subnet = self.api.subnet(spec.subnet)
        if spec.index_url is not None and urllib.parse.urlsplit(spec.index_url).password:
            text = "--index-url holds a password, and the nodes' user-data is no place for one"
            raise WrongUsage(f"{text}; bring the wheels with --wheelhouse")
        _ = self._username, self._bundle

    def observe(self, name: str) -> Inventory:
        shown = {each["InstanceId"]: each for each in self.api.instances(by_cluster(name))}
        instances = {**self._made_instances.get(name, {}), **shown}
        nodes = [node for each in instances.values() if (node := _node(each)) is not None]
        groups = self.api.groups(by_cluster(name)) or [each for each in [self._made_groups.get(name)] if each]
        if groups:
            self._groups[name] = groups[0]
        else:
            self._groups.pop(name, None)
        named = groups[0].get("Tags") if groups else None
        self._seen[name] = seen = Inventory(
            name=name,
            provider=self.name,
            group=groups[0]["GroupId"] if groups else None,
            engine=tags.as_dict(named).get(tags.ENGINE),
            nodes=tuple(sorted(nodes, key=lambda node: (node.role != SCHEDULER, node.index))),
            region=self.api.region,
            options=tags.read_options(named),
        )
        return seen

    def clusters(self) -> list[Inventory]:
        key = {"Name": "tag-key", "Values": [tags.CLUSTER]}
        found = [*self.api.groups(key), *self.api.instances(key)]
        alive = [each for each in found if each.get("State", {}).get("Name") != "terminated"]
        names = {tags.as_dict(each.get("Tags")).get(tags.CLUSTER, "") for each in alive}
        return [self.observe(name) for name in sorted(filter(None, names))]

    def leftovers(self, name: str) -> tuple[str, ...]:
        left: tuple[str, ...] = ()

        def attempt() -> bool | None:
            nonlocal left
            instances = [each for each in self.api.instances(by_cluster(name)) if each["State"]["Name"] != "terminated"]
            left = (
                *(each["InstanceId"] for each in instances),
                *self.api.volumes(name),
                *self.api.interfaces(name),
                *(each["GroupId"] for each in self.api.groups(by_cluster(name))),
            )
            return None if left else True

        # A volume or an interface may be shown for a while after its end.
        with contextlib.suppress(NotGone):
            polled(attempt, VISIBLE_WITHIN_S, "something is left", NotGone)
        return left

    # --- making -----------------------------------------------------------------------------------

    def ensure_group(self, spec: ClusterSpec, engine: Engine) -> None:
        group = self._groups.get(spec.name)
        if group is None:
            vpc = self._subnet["VpcId"] if self._subnet is not None else None
            options = spec.lasting_options()
            named = tags.group_tags(spec.name, engine.name, self._username, spec.keyname or "", options)
            group = self.api.create_group(spec.name, vpc, named)
            self._groups[spec.name] = self._made_groups[spec.name] = group
            if "GroupName" in group:
                # Somebody made it since we looked, and maybe more.
                self.observe(spec.name)
        self.api.open_group(group, caller_cidr())
        folder = self._folder(spec.name)
        if self._key_file is not None:
            write_private(folder / "keypair", os.path.abspath(self._key_file).encode())
        if not (folder / "host_key.json").exists():
            write_once(folder / "host_key.json", json.dumps(self._recovered_host_key(spec.name)).encode())
        if not (folder / "credential.pem").exists():
            write_once(folder / "credential.pem", self._recovered_credential(spec.name) or engine.new_credential())

    def _recovered_host_key(self, name: str) -> tuple[str, str]:
        """Return the single-use key of nodes that exist, or a new one."""
        for node in self._seen[name].nodes:
            if node.alive:
                found = cloud_init.host_key_in(self.api.user_data(node.id) or "")
                if found is not None:
                    return found
        return ssh.new_host_key()

    def _recovered_credential(self, name: str) -> bytes | None:
        """Fetch the cluster's credential from its scheduler, where another machine brought it up."""
        inventory = self._seen[name]
        node = inventory.scheduler
        # A node that has no key of its own yet has no credential either; whoever says so would bring us theirs.
        if node is None or not self.address(node) or self._host_keys(inventory).recorded(node) is None:
            return None
        return self.session(inventory, node).read(cloud_init.CREDENTIAL)

    def launch_scheduler(self, spec: ClusterSpec, engine: Engine, action: LaunchScheduler, tell: Tell) -> None:
        place = _place(engine, None)
        commands = {"dscheduler": engine.scheduler_command(place)}
        if action.both:
            commands["dworker"] = engine.worker_command(
                _place(engine, f"127.0.0.1:{engine.port}"), "NAME", _capacity(spec)
            )
        data = self._user_data(spec, engine, commands, None)
        request = self._request(spec, SCHEDULER, 0, 1, data, both=action.both)
        made = self._launch(spec, request)
        # The reply names the private address while the instance is still pending: the workers need not wait.
        self._scheduler_address[spec.name] = made[0]["PrivateIpAddress"]
        tell(f"{spec.name}-0", "launched")

    def launch_workers(self, spec: ClusterSpec, engine: Engine, action: LaunchWorkers, tell: Tell) -> None:
        scheduler = self._seen[spec.name].scheduler
        host = self._scheduler_address.get(spec.name) or (scheduler.private_address if scheduler else None)
        if host is None:
            raise LaunchFailed(
                f"the scheduler of {spec.name} ended before its workers were launched; run dec2 up again"
            )
        address = f"{host}:{engine.port}"
        commands = {"dworker": engine.worker_command(_place(engine, address), "NAME", _capacity(spec))}
        data = self._user_data(spec, engine, commands, host)
        count = len(action.indices)
        self._launch(spec, self._request(spec, WORKER, action.indices[0], count, data, both=False))
        for index in action.indices:
            tell(f"{spec.name}-{index}", "launched")

    def _user_data(
        self, spec: ClusterSpec, engine: Engine, commands: dict[str, tuple[str, ...]], source: str | None
    ) -> str:
        private, public = json.loads((self._folder(spec.name) / "host_key.json").read_text())
        return cloud_init.user_data(
            cloud_init.Boot(
                host_key=private,
                host_key_public=public,
                commands=commands,
                wheel_source=source,
                manifest_sha256=self._bundle.sha256,
                requirements=engine.requirements(),
                index_url=spec.index_url,
                offline=spec.wheelhouse is not None and spec.index_url is None,
            )
        )

    def _request(
        self, spec: ClusterSpec, role: str, first_index: int, count: int, data: str, *, both: bool
    ) -> dict[str, Any]:
        group = self._groups[spec.name]["GroupId"]
        named = tags.node_tags(spec.name, role, first_index, both=both)
        kinds = ("instance", "volume", "network-interface")
        type_ = spec.scheduler_type if role == SCHEDULER and spec.scheduler_type else spec.type
        volume = {
            "VolumeSize": spec.volume_size_gb,
            "VolumeType": "gp3",
            "Encrypted": True,
            "DeleteOnTermination": True,
        }
        request: dict[str, Any] = {
            "ImageId": self._image["ImageId"],
            "InstanceType": type_,
            "KeyName": spec.keyname,
            "MinCount": count,
            "MaxCount": count,
            "SecurityGroupIds": [group],
            "UserData": data,
            # The node ends its own life: a poweroff must end the bill too.
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
            "BlockDeviceMappings": [{"DeviceName": self._image.get("RootDeviceName", "/dev/xvda"), "Ebs": volume}],
            "TagSpecifications": [{"ResourceType": kind, "Tags": named} for kind in kinds],
        }
        if spec.subnet is not None:
            request["SubnetId"] = spec.subnet
        return request

    def _launch(self, spec: ClusterSpec, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Launch once, however often it is asked for: the client token is made of the whole request.

        A token whose instances have ended since answers with them, or with an error; then the next generation's is due.
        """
        body = json.dumps(request, sort_keys=True)
        for generation in range(_GENERATIONS_MAX):
            token = hashlib.sha256(f"{generation}\0{body}".encode()).hexdigest()[:64]
            try:
                made = self.api.run({**request, "ClientToken": token})
            except LaunchFailed as error:
                cause = error.__cause__
                if isinstance(cause, ClientError) and code_of(cause) == "IdempotentInstanceTerminated":
                    continue
                raise
            if all(each["State"]["Name"] not in ("shutting-down", "terminated") for each in made):
                self._made_instances.setdefault(spec.name, {}).update((each["InstanceId"], each) for each in made)
                return made
        raise LaunchFailed(f"no instance of {spec.name} stays alive; look at its console output, then dec2 destroy")

    def provision(self, spec: ClusterSpec, engine: Engine, tell: Tell) -> None:
        inventory = ec2_nodes.await_addresses(self, spec)
        scheduler = inventory.scheduler
        if scheduler is None:
            raise LaunchFailed(f"the scheduler of {spec.name} ended while it booted; run dec2 up again")
        folder = self._folder(spec.name)
        credential = (folder / "credential.pem").read_bytes()
        tell(f"{spec.name}-0", "booting")
        keys = self._host_keys(inventory)
        self._forget_session(spec.name)
        login = self.login(inventory, scheduler, keys.accepted(scheduler, newborn=True))
        session = ssh.connect(login, spec.timeout_s)
        tell(f"{spec.name}-0", "connected")
        session = self._sessions[spec.name] = ec2_nodes.rotate(session, scheduler, keys)
        ec2_nodes.push_bundle(session, self._bundle)
        ec2_nodes.bring_credential(session, credential)
        tell(f"{spec.name}-0", "installing")
        ec2_nodes.provision_workers(self, spec, inventory, keys, credential, tell)

    # --- asking -----------------------------------------------------------------------------------

    def registered(self, inventory: Inventory, engine: Engine) -> tuple[str, ...] | None:
        node = inventory.scheduler
        if node is None:
            return None
        place = _place(engine, f"127.0.0.1:{engine.port}")
        try:
            session = self.session(inventory, node)
            question = engine.question(place)
            output = session.run("sudo", "-u", "dec2", *question, timeout_s=40.0, check=False)
            return engine.registered(output)
        except (NodeUnreachable, ValueError):
            self._forget_session(inventory.name)
            return None

    def log_tail(self, inventory: Inventory, node: Node, lines: int) -> str:
        script = (
            f"cat {cloud_init.HOME}/phase 2>/dev/null; tail -n {lines} /var/log/cloud-init-output.log; "
            f"journalctl --no-pager -q -n {lines} -u dec2-bootstrap -u dscheduler -u dworker"
        )
        try:
            with ssh.connect(self.login(inventory, node), 5.0) as session:
                text = session.run_as_root("sh", "-c", script, check=False)
                return "\n".join(text.splitlines()[-2 * lines :])
        except NodeUnreachable as error:
            return str(error)

    # --- ending -----------------------------------------------------------------------------------

    def remove(self, inventory: Inventory, ids: tuple[str, ...]) -> None:
        self._forget_session(inventory.name)
        self.api.terminate(list(ids), inventory.name)
        for each in ids:
            self._made_instances.get(inventory.name, {}).pop(each, None)

    def delete_group(self, inventory: Inventory) -> None:
        self._forget_session(inventory.name)
        if inventory.group is not None:
            self.api.delete_group(inventory.group, inventory.name)
            ec2_caller.forget(self.api.region, inventory.group)
        for known in (self._groups, self._made_groups, self._made_instances):
            known.pop(inventory.name, None)

    # --- reaching ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self, inventory: Inventory) -> Iterator[Connection]:
        node = inventory.scheduler
        if node is None:
            raise NoSuchCluster(f"the cluster {inventory.name} has no running scheduler; run dec2 up again")
        if self._host_keys(inventory).recorded(node) is None:
            raise NodeUnreachable(f"the scheduler of {inventory.name} is not set up yet; run dec2 up again")
        session = self.session(inventory, node)
        file = self._folder(inventory.name) / "credential.pem"
        if not file.exists():
            content = session.read(cloud_init.CREDENTIAL)
            if content is None:
                raise NodeUnreachable(f"the scheduler of {inventory.name} has no credential yet; run dec2 up again")
            write_private(file, content)
        from dec2.engines import named

        with ssh.tunnel(session, "127.0.0.1", named(inventory.engine or "core").port) as address:
            yield Connection(address, str(file), False)

    def shell(self, inventory: Inventory, node: Node) -> tuple[str, ...]:
        login = self.login(inventory, node)
        known = self._folder(inventory.name) / "known_hosts"
        known.write_text("".join(f"{login.host} {line}\n" for line in login.host_keys))
        identity = ("-i", login.key_file, "-o", "IdentitiesOnly=yes") if login.key_file else ()
        options = ("-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes")
        return ("ssh", *identity, *options, f"{login.username}@{login.host}")

    def login(self, inventory: Inventory, node: Node, accepted: tuple[str, ...] | None = None) -> ssh.Login:
        """Return who logs in to a node and how, with the host keys that it may show: by default, its own."""
        address = self.address(node)
        if address is None:
            raise NodeUnreachable(f"{node.id} has no address yet")
        group = tags.as_dict(self._groups.get(inventory.name, {}).get("Tags"))
        username = group.get(tags.USERNAME) or DEBIAN_USER
        keys = accepted if accepted is not None else self._host_keys(inventory).accepted(node, newborn=False)
        return ssh.Login(address, username, self._private_key(inventory.name, group), keys)

    def address(self, node: Node) -> str | None:
        """Return where to reach a node from here; in a subnet without public addresses, its private one."""
        if node.public_address is not None:
            return node.public_address
        if self._subnet is not None:
            return None if self._subnet.get("MapPublicIpOnLaunch") else node.private_address
        return node.private_address if self._spec is None else None

    def _host_keys(self, inventory: Inventory) -> ec2_nodes.HostKeys:
        return ec2_nodes.HostKeys(self, inventory, self._folder(inventory.name))

    def _private_key(self, name: str, group: dict[str, str]) -> str | None:
        if self._key_file is not None or self._spec is not None:
            return self._key_file
        with contextlib.suppress(OSError):
            named = (self._folder(name) / "keypair").read_text()
            if os.path.exists(named):
                return named
        keyname = group.get(tags.KEYNAME, "")
        return ssh.find_private_key(keyname, self.api.key_pair(keyname), None)

    def session(self, inventory: Inventory, node: Node) -> ssh.NodeShell:
        """Return the kept connection to the scheduler's node, or a new one."""
        kept = self._sessions.get(inventory.name)
        if kept is None or not kept.alive or kept.login.host != self.address(node):
            kept = self._sessions[inventory.name] = ssh.connect(self.login(inventory, node), 20.0)
        return kept

    def _forget_session(self, name: str) -> None:
        kept = self._sessions.pop(name, None)
        if kept is not None:
            kept.close()

    # --- from the options -------------------------------------------------------------------------

    @cached_property
    def _bundle(self) -> Bundle:
        return bundle(self._spec.wheelhouse if self._spec else None)

    @cached_property
    def _username(self) -> str:
        assert self._spec is not None
        if self._spec.username:
            return self._spec.username
        if self._image.get("OwnerId") == DEBIAN_OWNER:
            return DEBIAN_USER
        label = str(self._image.get("Name", "")).lower()
        for word, user in _USERS.items():
            if word in label:
                return user
        raise WrongUsage(f"dec2 does not know the user of the image {self._image['ImageId']}; add --username")

    def _folder(self, name: str) -> Path:
        """Return the cache of a cluster on this machine; its name dies with the group."""
        group = self._groups.get(name)
        if group is None:
            raise ProviderError(f"the cluster {name} has no security group; run dec2 destroy {name}")
        return ec2_caller.folder(self.api.region, group["GroupId"])


def _node(instance: dict[str, Any]) -> Node | None:
    named = tags.read_node(instance.get("Tags"))
    if named is None:
        return None
    return Node(
        id=instance["InstanceId"],
        role=named.role,
        index=named.first_index + int(instance.get("AmiLaunchIndex", 0)),
        state=_STATES.get(instance["State"]["Name"], "pending"),
        private_address=instance.get("PrivateIpAddress"),
        public_address=instance.get("PublicIpAddress"),
        type=instance.get("InstanceType"),
        both=named.both,
        registers_as=instance["InstanceId"],
    )


def _place(engine: Engine, scheduler_address: str | None) -> Place:
    return Place(
        python=cloud_init.PYTHON,
        host="0.0.0.0",
        port=engine.port,
        scheduler_file=cloud_init.SCHEDULER_FILE,
        scheduler_address=scheduler_address,
        credential=cloud_init.CREDENTIAL,
    )


def _capacity(spec: ClusterSpec) -> Capacity:
    return Capacity(spec.nthreads, spec.nprocs, spec.memory_limit)
