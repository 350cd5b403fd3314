"""The front of the test cloud."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moto_fixtures import clients, image, region
from moto_fixtures.account import MotoAccount
from moto_fixtures.boots import BootPlan
from moto_fixtures.lifecycle import Lifecycle
from moto_fixtures.machine import NspawnMachine, NspawnMachines
from moto_fixtures.paper import PaperMachine, PaperMachines
from moto_fixtures.request import LoggedCall
from moto_fixtures.rules.capacity import CapacityTable
from moto_fixtures.rules.permissions import PermissionTable
from moto_fixtures.rules.rates import RateLimits
from moto_fixtures.server import ApiServer
from moto_fixtures.weather import Weather

REGION = "us-east-1"
KEY_NAME = "testcloud"


class TestCloud:
    """A fresh account of EC2, with or without machines behind its instances.

        with TestCloud(machines=False) as cloud:
            ec2 = cloud.client("ec2")

    machines: True for systemd-nspawn machines, which need the namespace of `moto_fixtures.isolation`; False for paper.
    region: the home region, where the key pair is.  With machines it is the only one.
    settles: on paper, how many looks (DescribeInstances, DescribeInstanceStatus) an instance takes to arrive in its
        next state, or a function of the instance id that says whether it has.
    visible_after: how many Describe calls of its kind a new thing stays invisible for.

    Raises NotIsolated, HostLacking or ImageBuildFailed when it is entered with machines and they cannot be had.
    """

    __test__ = False  # pytest takes names that begin with Test for tests

    def __init__(
        self,
        *,
        machines: bool = True,
        region: str = REGION,
        settles: int | Callable[[str], bool] = 1,
        visible_after: int = 0,
    ) -> None:
        self.region = region
        #: The user that the base image lets in with the key pair of the call.
        self.username = image.USERNAME
        #: The name of a key pair that is there from the start, as if it had been imported long ago.
        self.key_name = KEY_NAME
        self._settles = settles
        self._with_machines = machines
        self._visible_after = visible_after
        self._clients: dict[tuple[str, str, str | None], clients.PooledClient] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> TestCloud:
        """Open the cloud; it answers when this returns."""
        with contextlib.ExitStack() as undo:
            self._open(undo)
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything away: machines at once, without a shutdown."""
        self._stack.close()

    def _open(self, undo: contextlib.ExitStack) -> None:
        lock = threading.RLock()
        self._paper = PaperMachines(self._settles)
        self._hall: NspawnMachines | None = None
        if self._with_machines:
            self._hall = undo.enter_context(NspawnMachines())
        keeper = self._hall or self._paper
        self._account = MotoAccount()
        undo.callback(self._account.close)
        self._home = self._account.region(self.region)
        self.lifecycle = keeper.lifecycle = Lifecycle(self._account, keeper, lock)
        self._server = ApiServer(self._account, self.lifecycle, keeper, lock)
        self._server.visibility.describes = self._visible_after
        if self._hall is None:
            self._server.before_look = self._paper.look
        else:
            self._server.after_change = self._enforce_groups
            self._server.regions_allowed = frozenset({self.region})
        undo.callback(self._server.close)
        self._secret = self._make_key()

    def _make_key(self) -> bytes:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self._home.import_key(self.key_name, public)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def _enforce_groups(self) -> None:
        if self._hall is not None:
            groups = self._server.describe("DescribeSecurityGroups", self.region)["SecurityGroups"]
            self._hall.enforce(groups, self._home)

    # -- what tests use

    @functools.cached_property
    def key_file(self) -> Path:
        """The private key of `key_name`, mode 0600."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="testcloud-")))
        place = folder / f"{self.key_name}.pem"
        place.touch(mode=0o600)
        place.write_bytes(self._secret)
        return place

    @property
    def url(self) -> str:
        """The endpoint of the API, for AWS_ENDPOINT_URL."""
        return self._server.url

    @property
    def calls(self) -> list[LoggedCall]:
        """All calls since the start, in their order; each with `.action`, `.parameters` and `.outcome`."""
        return self._server.calls

    def actions(self) -> list[str]:
        """The names of all calls since the start, in their order."""
        return [logged.action for logged in self._server.calls]

    @property
    def faults(self) -> Weather:
        """Orders for errors, lost answers and killed callers."""
        return self._server.weather

    @property
    def boots(self) -> BootPlan:
        """On paper: which launches never run, die on the way, or take their time."""
        return self._paper.boots

    @property
    def capacity(self) -> CapacityTable:
        """How many instances of a type there are to be had."""
        return self._server.capacity

    @property
    def permissions(self) -> PermissionTable:
        """What the caller may do."""
        return self._server.permissions

    @property
    def rates(self) -> RateLimits:
        """The token buckets of the API; they are off until `rates.on = True`."""
        return self._server.rates

    @property
    def visible_after(self) -> int:
        """How many Describe calls of its kind a new thing stays invisible for."""
        return self._server.visibility.describes

    @visible_after.setter
    def visible_after(self, describes: int) -> None:
        self._server.visibility.describes = describes

    @property
    def known_after(self) -> int:
        """How many changing calls that name a new instance or group are told that there is no such thing."""
        return self._server.visibility.changes

    @known_after.setter
    def known_after(self, changes: int) -> None:
        self._server.visibility.changes = changes

    @property
    def image_id(self) -> str:
        """The id of the Debian 12 image in the home region."""
        return self._home.image_id

    @property
    def caller_address(self) -> str:
        """The address from which machines see the callers of this namespace; a group must let it in."""
        return region.CALLER if self._hall is not None else "127.0.0.1"

    @property
    def machines(self) -> Mapping[str, NspawnMachine | PaperMachine]:
        """The machine of each instance that was ever started and not terminated (on paper: also terminated ones)."""
        return self._paper.machines if self._hall is None else self._hall.machines

    def paper(self, instance_id: str) -> PaperMachine:
        """The record of an instance without a machine.  Raises KeyError."""
        return self._paper.machines[instance_id]

    def machine(self, instance_id: str) -> NspawnMachine:
        """The machine of an instance.  Raises KeyError."""
        if self._hall is None:
            raise KeyError(f"{instance_id}: this cloud has its instances on paper")
        return self._hall.machines[instance_id]

    def settle(self) -> None:
        """On paper: let every instance arrive in its next state now."""
        with self._server.lock:
            self._paper.settle()

    def state(self, instance_id: str) -> str | None:
        """The state of an instance; None if there was none of this name."""
        return self.lifecycle.state(instance_id)

    def wait_state(self, instance_id: str, state: str, timeout_s: float = 60) -> None:
        """Wait until an instance is in a state.  Raises TimeoutError."""
        self.lifecycle.wait_state(instance_id, state, timeout_s)

    def reclaim(self, instance_id: str) -> None:
        """Take a spot instance back, as EC2 does.  Raises KeyError."""
        self.lifecycle.reclaim(instance_id)

    def console(self, instance_id: str) -> str:
        """What the machine wrote to its console so far."""
        keeper = self._hall or self._paper
        return keeper.console(instance_id).decode("utf-8", "replace")

    def failures(self) -> list[Exception]:
        """What went wrong in the test cloud itself; empty is good."""
        return [*self._server.failures, *(self._hall.failures if self._hall else [])]

    def client(self, service: str = "ec2", region: str | None = None) -> Any:
        """A boto3 client of this cloud.  It tries a failed call once only, so that faults show."""
        return self._client(service, region, self.url)

    def direct_client(self, service: str = "ec2", region: str | None = None) -> Any:
        """The same without HTTP: its requests go straight to the API of the cloud, which then needs no port."""
        return self._client(service, region, None)

    def _client(self, service: str, region: str | None, url: str | None) -> Any:
        wanted = (service, region or self.region, url)
        if wanted not in self._clients:
            self._clients[wanted] = made = clients.borrowed(*wanted[:2])
            self._stack.callback(clients.give_back, made)
            made.point(url, None if url else self._server)
        return self._clients[wanted].boto

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to take this cloud for AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testcloud",
            "AWS_SECRET_ACCESS_KEY": "testcloud",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "TESTCLOUD_KEY_NAME": self.key_name,
            "TESTCLOUD_KEY_FILE": str(self.key_file),
            "TESTCLOUD_IMAGE": self.image_id,
            "TESTCLOUD_CALLER": self.caller_address,
        }

    def leftovers(self, region: str | None = None) -> dict[str, list[str]]:
        """What is left in a region that somebody made, by kind; empty after a clean destroy.

        Kinds: instances that are not terminated, volumes, interfaces, groups (without `default`), keys (without the
        one that is there from the start).
        """
        backend = self._account.region(region or self.region).backend
        with self._server.lock:
            found = {
                "instances": [
                    one.id
                    for reservation in backend.reservations.values()
                    for one in reservation.instances
                    if one._state.name != "terminated"
                ],
                "volumes": list(backend.volumes),
                "interfaces": list(backend.enis),
                "groups": [
                    group.id
                    for groups in backend.groups.values()
                    for group in groups.values()
                    if group.name != "default"
                ],
                "keys": [name for name in backend.key_pairs if name != self.key_name],
            }
        return {kind: names for kind, names in found.items() if names}
