"""Security groups as nft rules.  Pure: DescribeSecurityGroups in, text for `nft -f` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ANYWHERE = "0.0.0.0/0"


def ruleset(groups: Iterable[Mapping[str, Any]], members: Mapping[str, set[str]]) -> str:
    """The rules of one machine.

    groups: the machine's groups, as DescribeSecurityGroups gives them.
    members: the private addresses of the machines in each group, by its id.
    """
    groups = list(groups)
    inward = [line for group in groups for rule in group["IpPermissions"] for line in _lines(rule, members, "saddr")]
    outward = [
        line for group in groups for rule in group["IpPermissionsEgress"] for line in _lines(rule, members, "daddr")
    ]
    return "\n".join(
        [
            "table inet groups",
            "delete table inet groups",
            "table inet groups {",
            *_chain("inward", "input", "iif lo accept", inward),
            *_chain("outward", "output", "oif lo accept", outward),
            "}",
            "",
        ]
    )


def _chain(name: str, hook: str, own: str, lines: list[str]) -> list[str]:
    return [
        f"  chain {name} {{",
        f"    type filter hook {hook} priority 0; policy drop;",
        f"    {own}",
        "    ct state established,related accept",
        *(f"    {line}" for line in dict.fromkeys(lines)),
        "  }",
    ]


def _lines(rule: Mapping[str, Any], members: Mapping[str, set[str]], side: str) -> list[str]:
    peers = [entry["CidrIp"] for entry in rule.get("IpRanges", [])]
    for pair in rule.get("UserIdGroupPairs", []):
        peers += sorted(members.get(pair.get("GroupId", ""), set()))
    traffic = _traffic(rule)
    lines = []
    for peer in dict.fromkeys(peers):
        where = "" if peer == ANYWHERE else f"ip {side} {peer}"
        lines.append(" ".join(part for part in (where, traffic, "accept") if part))
    return lines


def _traffic(rule: Mapping[str, Any]) -> str:
    protocol = str(rule.get("IpProtocol", "-1"))
    first, last = rule.get("FromPort"), rule.get("ToPort")
    if protocol == "-1":
        return "meta nfproto ipv4"
    if protocol in ("icmp", "1"):
        return "ip protocol icmp" if first in (None, -1) else f"icmp type {first}"
    if protocol in ("tcp", "udp", "6", "17"):
        word = {"6": "tcp", "17": "udp"}.get(protocol, protocol)
        if first in (None, -1):
            return f"meta l4proto {word}"
        return f"{word} dport {first}" if first == last else f"{word} dport {first}-{last}"
    return f"meta l4proto {protocol}"
