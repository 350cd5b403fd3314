"""What exists on EC2, as the tags say; and what this process made a moment ago, which EC2 may not show yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from dec2 import tags
from dec2.errors import NotGone
from dec2.inventory import SCHEDULER, Inventory, Node
from dec2.providers.ec2.api import VISIBLE_WITHIN_S, EC2Api, by_cluster, polled

_STATES = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "gone",
    "terminated": "gone",
}


class Sight:
    """The clusters of a region, as they were last seen."""

    def __init__(self, api: EC2Api) -> None:
        self._api = api
        self._groups: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, Inventory] = {}
        self._made_groups: dict[str, dict[str, Any]] = {}
        self._made_instances: dict[str, dict[str, dict[str, Any]]] = {}
        #: The groups whose deletion EC2 confirmed: the proof that no interface is in them.
        self._deleted: set[str] = set()

    # --- looking: two calls for a cluster, or for all of them; one for its nodes

    def look(self, name: str) -> Inventory:
        """Look at a cluster: its nodes and its group."""
        instances = self._api.instances(by_cluster(name))
        groups = self._api.groups(by_cluster(name))
        return self._taken(name, instances, groups)

    def look_at_nodes(self, name: str) -> Inventory:
        """Look at a cluster's nodes again; its group is as it was."""
        known = self._groups.get(name)
        return self._taken(name, self._api.instances(by_cluster(name)), [known] if known else [])

    def clusters(self) -> list[Inventory]:
        """Look at all clusters of the region."""
        key = {"Name": "tag-key", "Values": [tags.CLUSTER]}
        groups, instances = self._api.groups(key), self._api.instances(key)
        alive = [each for each in instances if each["State"]["Name"] != "terminated"]
        names = {_cluster_of(each) for each in (*groups, *alive)} - {""}
        return [
            self._taken(
                name,
                [each for each in instances if _cluster_of(each) == name],
                [each for each in groups if _cluster_of(each) == name],
            )
            for name in sorted(names)
        ]

    def _taken(self, name: str, shown: Iterable[dict[str, Any]], groups: list[dict[str, Any]]) -> Inventory:
        instances = {**self._made_instances.get(name, {}), **{each["InstanceId"]: each for each in shown}}
        nodes = [node for each in instances.values() if (node := node_of(each)) is not None]
        group = groups[0] if groups else self._made_groups.get(name)
        if group is not None:
            self._groups[name] = group
        else:
            self._groups.pop(name, None)
        named = group.get("Tags") if group is not None else None
        self._seen[name] = seen = Inventory(
            name=name,
            provider="ec2",
            group=group["GroupId"] if group is not None else None,
            engine=tags.as_dict(named).get(tags.ENGINE),
            nodes=tuple(sorted(nodes, key=lambda node: (node.role != SCHEDULER, node.index))),
            region=self._api.region,
            options=tags.read_options(named),
            keyname=tags.as_dict(named).get(tags.KEYNAME),
            username=tags.as_dict(named).get(tags.USERNAME),
        )
        return seen

    def leftovers(self, name: str) -> tuple[str, ...]:
        """Look everywhere, and for a while: a volume or an interface may be shown after its end."""
        left: tuple[str, ...] = ()

        def attempt() -> bool | None:
            nonlocal left
            left = (
                *(each["InstanceId"] for each in self._api.instances(by_cluster(name)) if _there(each)),
                *self._api.volumes(name),
                *self._api.interfaces(name),
                *(each["GroupId"] for each in self._groups_left(name)),
            )
            return None if left else True

        with contextlib.suppress(NotGone):
            polled(attempt, VISIBLE_WITHIN_S, "something is left", NotGone)
        return left

    def _groups_left(self, name: str) -> list[dict[str, Any]]:
        # That EC2 deleted the group of this name is known better from its own word than from another look.
        return [] if name in self._deleted else self._api.groups(by_cluster(name))

    # --- remembering

    def seen(self, name: str) -> Inventory:
        """Return a cluster as it was last seen."""
        return self._seen.get(name) or self.look(name)

    def group(self, name: str) -> dict[str, Any] | None:
        """Return the group of a cluster as it was last seen."""
        return self._groups.get(name)

    def remember_group(self, name: str, group: dict[str, Any]) -> None:
        self._groups[name] = self._made_groups[name] = group
        self._deleted.discard(name)

    def remember_instances(self, name: str, made: Iterable[dict[str, Any]]) -> None:
        self._made_instances.setdefault(name, {}).update((each["InstanceId"], each) for each in made)

    def forget_instances(self, name: str, ids: Iterable[str]) -> None:
        for each in ids:
            self._made_instances.get(name, {}).pop(each, None)

    def forget(self, name: str, *, deleted: bool) -> None:
        """Forget a cluster; `deleted` tells whether EC2 confirmed the end of its group."""
        if deleted:
            self._deleted.add(name)
        for known in (self._groups, self._made_groups, self._made_instances):
            known.pop(name, None)


def _cluster_of(thing: dict[str, Any]) -> str:
    return tags.as_dict(thing.get("Tags")).get(tags.CLUSTER, "")


def _there(instance: dict[str, Any]) -> bool:
    return bool(instance["State"]["Name"] != "terminated")


def node_of(instance: dict[str, Any]) -> Node | None:
    """Return an instance as a node, or None if its tags do not say that it is one."""
    named = tags.read_node(instance.get("Tags"))
    if named is None:
        return None
    launched = instance.get("LaunchTime")
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
        launched_at_s=launched.timestamp() if launched is not None else None,
    )
