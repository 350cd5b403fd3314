"""The only schema of the tags, which are all the state that a cluster on EC2 has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CLUSTER = "dec2:cluster"
ENGINE = "dec2:engine"
ROLE = "dec2:role"
FIRST_INDEX = "dec2:first-index"
BOTH = "dec2:both"
HOST_KEY = "dec2:host-key"
USERNAME = "dec2:username"
KEYNAME = "dec2:keyname"
_OPTION = "dec2:option:"


@dataclass(frozen=True, slots=True)
class NodeTags:
    """What the tags of an instance say.

    `first_index` is that of the first instance of its launch; the others follow by their launch index.
    """

    cluster: str
    role: str
    first_index: int
    both: bool
    host_key: str | None


def group_tags(
    cluster: str, engine: str, username: str, keyname: str, options: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the tags of a cluster's security group: what whoever comes later must know of it.

    `options` are those that its nodes have for life.
    """
    lasting = {f"{_OPTION}{name}": value for name, value in options.items()}
    named = {CLUSTER: cluster, ENGINE: engine, USERNAME: username, KEYNAME: keyname, **lasting}
    return as_list({**named, "Name": f"dec2-{cluster}"})


def node_tags(cluster: str, role: str, first_index: int, *, both: bool) -> list[dict[str, str]]:
    """Return the tags of instances, and of the volumes and interfaces made with them."""
    named = {CLUSTER: cluster, ROLE: role, FIRST_INDEX: str(first_index), BOTH: str(int(both))}
    return as_list({**named, "Name": f"dec2-{cluster}-{role}"})


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form that the EC2 API takes."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def as_dict(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Return tags from the form that the EC2 API gives."""
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags or ()}


def read_options(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Return the options in a group's tags, by name."""
    found = as_dict(tags).items()
    return {key.removeprefix(_OPTION): value for key, value in found if key.startswith(_OPTION)}


def read_node(tags: Iterable[Mapping[str, Any]] | None) -> NodeTags | None:
    """Return what an instance's tags say, or None if it is no node of ours."""
    found = as_dict(tags)
    try:
        return NodeTags(
            cluster=found[CLUSTER],
            role=found[ROLE],
            first_index=int(found[FIRST_INDEX]),
            both=found.get(BOTH) == "1",
            host_key=found.get(HOST_KEY),
        )
    except (KeyError, ValueError):
        return None
