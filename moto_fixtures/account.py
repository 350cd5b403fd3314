"""The only door to moto's own objects: a fresh account, and what must be read or mended in it.

moto keeps all accounts of a process in one table.  Each test cloud takes an account number of its own, so two of them
in one process do not see each other.  Where moto's internal names are used, `check_moto` has made sure that they exist.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

from moto_fixtures import host, images
from moto_fixtures.errors import MotoChanged

# Read by moto when it is imported; switched on again in `check_moto` in case somebody imported moto before.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

import moto.settings as moto_settings
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.utils import filter_dict_attribute_mapping

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

#: The device of Debian's root file system.
ROOT_DEVICE = "/dev/xvda"
ROOT_VOLUME_GIB = 8

#: Addresses of each subnet that AWS keeps for itself.
AWS_ADDRESSES = 5

#: Ranges that are kept for documentation and for bench tests, so an address that leaks cannot belong to anybody.
PUBLIC_NETWORKS = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("198.18.0.0/15"))
PRIVATE_NETWORK = ipaddress.ip_network("172.31.0.0/16")

#: Filters of DescribeInstances that moto lacks, by the attribute that holds their value.
EXTRA_FILTERS = {
    "client-token": "client_token",
    "instance-lifecycle": "lifecycle",
    "network-interface.group-id": "security_groups.id",
    "network-interface.network-interface-id": "network_interfaces.id",
    "network-interface.subnet-id": "network_interfaces.subnet_id",
}

_SETTINGS = ("EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "ENABLE_KEYPAIR_VALIDATION", "ENABLE_AMI_VALIDATION")
_BACKEND_NAMES = ("reservations", "enis", "volumes", "groups", "subnets", "amis", "key_pairs", "default_vpc")

_account_numbers = itertools.count(200000000001)
_addresses: dict[str, PublicAddresses] = {}
_preparing = threading.Lock()


class PublicAddresses:
    """The public addresses of one account; one that was given back is given out again last."""

    def __init__(self) -> None:
        self._fresh: Iterator[str] = itertools.chain.from_iterable(map(_hosts, PUBLIC_NETWORKS))
        self._used: set[str] = set()
        self._returned: list[str] = []

    def take(self) -> str:
        """An address that nobody in the account has.  Raises RuntimeError if all 131,000 are taken."""
        address = next(self._fresh, None)
        if address is None:
            if not self._returned:
                raise RuntimeError("the test cloud has no public address left: terminate instances first.")
            address = self._returned.pop(0)
        self._used.add(address)
        return address

    def keep_only(self, addresses: set[str]) -> None:
        """Take back every address that is not in use any more."""
        for address in sorted(self._used - addresses):
            self._used.remove(address)
            self._returned.append(address)


def _hosts(network: Any) -> Iterator[str]:
    return (str(address) for address in network.hosts())


def check_moto() -> None:
    """Prepare moto once per process.  Raises MotoChanged if a name that the test cloud relies on is gone."""
    _check_names(moto_settings, _SETTINGS)
    _check_names(NetworkInterface, ("check_auto_public_ip", "delete"))
    _check_names(Instance, ("teardown_defaults", "terminate", "stop", "private_ip", "public_ip"))
    with _preparing:
        for name in _SETTINGS:
            setattr(moto_settings, name, True)
        filter_dict_attribute_mapping.update(EXTRA_FILTERS)
        setattr(NetworkInterface, "check_auto_public_ip", _give_public_address)  # noqa: B010 - mypy knows the method


def _check_names(owner: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not hasattr(owner, name):
            where = getattr(owner, "__name__", type(owner).__name__)
            raise MotoChanged(
                f"the installed moto has no {where}.{name}: install moto 5.2.5,"
                " or adapt moto_fixtures/account.py to the newer one."
            )


def _give_public_address(interface: Any) -> None:
    """In place of moto's own, which hands out addresses of a range that belongs to somebody."""
    if str(interface.public_ip_auto_assign).lower() == "true":
        account_id = interface.ec2_backend.account_id
        interface.public_ip = _addresses.setdefault(account_id, PublicAddresses()).take()


class PublicImage(Ami):  # type: ignore[misc, unused-ignore]
    """A public image as EC2 shows it: a small root volume that goes with the instance."""

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The one volume of the image."""
        volume = {
            "SnapshotId": self.ebs_snapshot.id,
            "VolumeSize": ROOT_VOLUME_GIB,
            "DeleteOnTermination": True,
            "VolumeType": "gp3",
        }
        return [{"DeviceName": self.root_device_name, "Ebs": volume}]


class MotoAccount:
    """A fresh account with a default network and the base image, in as many regions as are asked for."""

    def __init__(self) -> None:
        check_moto()
        self.id = str(next(_account_numbers))
        self._regions: dict[str, MotoRegion] = {}

    def region(self, name: str) -> MotoRegion:
        """The account's share of one region; made when it is first asked for.  Raises KeyError for unknown names."""
        if name not in self._regions:
            self._regions[name] = MotoRegion(self.id, name)
        return self._regions[name]

    def regions(self) -> list[MotoRegion]:
        """The regions that were used so far."""
        return list(self._regions.values())

    def close(self) -> None:
        """Forget the account."""
        ec2_backends.pop(self.id, None)
        _addresses.pop(self.id, None)


class MotoRegion:
    """What the rules of the test cloud read and change in one region of moto."""

    def __init__(self, account_id: str, name: str) -> None:
        self.name = name
        self.account_id = account_id
        self.backend: Any = ec2_backends[account_id][name]
        _check_names(self.backend, _BACKEND_NAMES)
        #: Public parameters of Systems Manager in this region; each names an image.
        self.parameters: dict[str, str] = {}
        for image in images.public_images(host.architecture()):
            self._register(image)
        self.image_id = self.parameters[images.BASE_PARAMETER.format(label=images.debian_label(host.architecture()))]

    def _register(self, image: images.ImageDescription) -> None:
        image_id = f"ami-{hashlib.sha256(f'{image.key} {self.name}'.encode()).hexdigest()[:17]}"
        self.backend.amis[image_id] = PublicImage(
            self.backend,
            image_id,
            name=image.name,
            description=image.description,
            owner_id=image.owner,
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=image.root_device,
            image_location=f"{image.owner}/{image.name}",
            region_name=f"{self.name}a",
        )
        self.parameters |= dict.fromkeys(image.parameters, image_id)

    # -- reading

    def instances(self) -> list[Any]:
        """All instances of the region, terminated ones too."""
        return [one for reservation in self.backend.reservations.values() for one in reservation.instances]

    def instance(self, instance_id: str) -> Any | None:
        """One instance; None if there is none of that name."""
        return next((one for one in self.instances() if one.id == instance_id), None)

    def state(self, instance_id: str) -> str | None:
        """The state of an instance as the API says it; None if there is no such instance."""
        found = self.instance(instance_id)
        return None if found is None else str(found._state.name)

    def default_subnets(self) -> dict[str, str]:
        """The default subnet of each zone, in the order of the zones."""
        subnets = self.backend.get_default_subnets()
        return {zone: subnets[zone].id for zone in sorted(subnets)}

    def zone_of_subnet(self, subnet_id: str) -> str | None:
        """The zone of a subnet; None if there is no such subnet."""
        for zones in self.backend.subnets.values():
            if subnet_id in zones:
                return str(zones[subnet_id].availability_zone)
        return None

    def group(self, group_id: str) -> Any | None:
        """A security group by its id; None if there is none."""
        return next((groups[group_id] for groups in self.backend.groups.values() if group_id in groups), None)

    def group_named(self, name: str) -> Any | None:
        """A security group by its name; None if there is none."""
        every = (group for groups in self.backend.groups.values() for group in groups.values())
        return next((group for group in every if group.name == name), None)

    def users_of_group(self, group_id: str) -> list[str]:
        """Interfaces, instances and other groups that use a group, by id."""
        users = [eni.id for eni in self.backend.enis.values() if group_id in group_ids(eni)]
        for one in self.instances():
            if one._state.name != "terminated" and group_id in instance_group_ids(one):
                users.append(one.id)
        for groups in self.backend.groups.values():
            for other in groups.values():
                rules = [*other.ingress_rules, *other.egress_rules]
                if other.id != group_id and any(rule.source_group.get("GroupId") == group_id for rule in rules):
                    users.append(other.id)
        return users

    def private_address_in_use(self, address: str) -> bool:
        """Whether an interface of the region has this private address."""
        return any(eni.private_ip_address == address for eni in self.backend.enis.values())

    def free_addresses(self, subnet_id: str) -> int | None:
        """How many addresses a subnet has left; None if there is no such subnet."""
        for zones in self.backend.subnets.values():
            if subnet_id in zones:
                used = sum(1 for eni in self.backend.enis.values() if eni.subnet.id == subnet_id)
                return int(zones[subnet_id].cidr.num_addresses) - AWS_ADDRESSES - used
        return None

    def root_device(self, image_id: str) -> str | None:
        """The device name of the root volume of an image; None if there is no such image."""
        image = self.backend.amis.get(image_id)
        return None if image is None else str(image.root_device_name)

    def tags_of(self, resource_id: str) -> dict[str, str]:
        """The tags of whatever has this id."""
        return dict(self.backend.tags.get(resource_id, {}))

    def vcpus(self, instance_type: str) -> int | None:
        """The number of virtual processors of a type; None if EC2 has no such type."""
        details = self._type(instance_type)
        return None if details is None else int(details["VCpuInfo"]["DefaultVCpus"])

    def memory_bytes(self, instance_type: str) -> int | None:
        """The memory of a type in bytes; None if EC2 has no such type."""
        details = self._type(instance_type)
        return None if details is None else int(details["MemoryInfo"]["SizeInMiB"]) << 20

    def _type(self, instance_type: str) -> Any | None:
        return INSTANCE_TYPES.get(instance_type)

    def public_key(self, instance: Any) -> str | None:
        """The public key that the instance was launched with, in OpenSSH's form."""
        pair = self.backend.key_pairs.get(instance.key_name) if instance.key_name else None
        return None if pair is None else str(pair.public_key).strip()

    # -- mending

    def import_key(self, name: str, public_key: bytes) -> None:
        """Take a key pair in without a call."""
        self.backend.import_key_pair(name, public_key, {})

    def adopt(self, instance: Any, interface_tags: dict[str, str], keep_interfaces: set[int]) -> None:
        """Make a new instance behave as on EC2.

        interface_tags: what RunInstances said about tags of interfaces, which moto drops.
        keep_interfaces: device indexes whose interface shall outlive the instance.
        """
        for index, interface in instance.nics.items():
            if interface.description == "Primary network interface" or index not in keep_interfaces:
                interface.delete_on_termination = index not in keep_interfaces
            interface.delete = _nothing  # held until the machine is gone; `release` lets go
            if interface_tags:
                interface.add_tags(interface_tags)
            self._check_addresses(instance, interface)
        instance.teardown_defaults = _nothing
        if not instance.security_groups and instance.nics:
            instance.security_groups = list(instance.nics[0]._group_set)

    def _check_addresses(self, instance: Any, interface: Any) -> None:
        private = ipaddress.ip_address(interface.private_ip_address)
        public = interface.public_ip and ipaddress.ip_address(interface.public_ip)
        known = public is None or any(public in network for network in PUBLIC_NETWORKS)
        if not known or (interface.subnet.vpc_id == self.backend.default_vpc.id and private not in PRIVATE_NETWORK):
            raise MotoChanged(
                f"moto gave {instance.id} the addresses {private} and {public}, which are not of the test cloud:"
                " adapt moto_fixtures/account.py to this moto."
            )

    def release(self, instance: Any) -> None:
        """The instance is terminated: its volumes and interfaces go, unless they were to be kept."""
        type(instance).teardown_defaults(instance)
        for interface in instance.nics.values():
            if interface.delete_on_termination:
                if interface.id in self.backend.enis:
                    type(interface).delete(interface)
            else:
                interface.__dict__.pop("delete", None)
                interface.instance = None
                interface.attachment_id = None
                interface.status = "available"

    def follow_groups(self, instance: Any) -> None:
        """After ModifyInstanceAttribute with Groups: the first interface gets them, as on EC2."""
        if instance.nics:
            instance.nics[0]._group_set = list(instance.security_groups)

    def set_state(self, instance: Any, state: str) -> None:
        """Let the API say that the instance is in this state."""
        instance._state.name = state
        instance._state.code = STATE_CODES[state]

    def set_reason(self, instance: Any, code: str, message: str) -> None:
        """Let the API say why the state changed."""
        instance.state_reason = StateReason(f"{code}: {message}", code)

    def end(self, instance: Any, state: str) -> None:
        """Stop or terminate an instance without a call."""
        {"stopped": instance.stop, "terminated": instance.terminate}[state]()

    def return_addresses(self) -> None:
        """Take back the public addresses that no interface has any more."""
        pool = _addresses.get(self.account_id)
        if pool:
            every = (eni for backend in ec2_backends[self.account_id].values() for eni in backend.enis.values())
            pool.keep_only({eni.public_ip for eni in every if eni.public_ip})

    def shelves(self) -> dict[str, list[Any]]:
        """The tables from which the answers of each Describe call come, by the name of the call."""
        return {
            "DescribeInstances": [self.backend.reservations],
            "DescribeInstanceStatus": [self.backend.reservations],
            "DescribeNetworkInterfaces": [self.backend.enis],
            "DescribeVolumes": [self.backend.volumes],
            "DescribeSecurityGroups": list(self.backend.groups.values()),
        }


def _nothing() -> None:
    """Stands in for a deletion that must wait for the machine."""


def group_ids(interface: Any) -> set[str]:
    """The security groups of an interface."""
    return {group.id for group in interface.group_set}


def instance_group_ids(instance: Any) -> set[str]:
    """The security groups of an instance, those of its interfaces included."""
    ids = {group.id for group in instance.security_groups}
    for interface in instance.nics.values():
        ids |= group_ids(interface)
    return ids
