"""Security groups as nft rules: text in, text out."""

from __future__ import annotations

from typing import Any

from moto_fixtures.firewall import ruleset

EVERYTHING_OUT = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


def group(group_id: str, *inward: dict[str, Any], outward: list[dict[str, Any]] = EVERYTHING_OUT) -> dict[str, Any]:
    return {"GroupId": group_id, "IpPermissions": list(inward), "IpPermissionsEgress": outward}


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain, without what every chain has."""
    body = text.split(f"chain {name} {{")[1].split("}")[0]
    return [line.strip() for line in body.strip().splitlines()][3:]


def test_a_group_without_rules_lets_nothing_in_and_everything_out() -> None:
    text = ruleset([group("sg-a")], {})
    assert chain(text, "inward") == []
    assert chain(text, "outward") == ["meta nfproto ipv4 accept"]
    assert text.count("policy drop") == 2


def test_no_group_lets_nothing_pass() -> None:
    text = ruleset([], {})
    assert chain(text, "inward") == chain(text, "outward") == []


def test_ports_addresses_and_protocols() -> None:
    text = ruleset(
        [
            group(
                "sg-a",
                {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.10/32"}]},
                {"IpProtocol": "udp", "FromPort": 1000, "ToPort": 2000, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
                {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "172.31.0.0/16"}]},
                {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            )
        ],
        {},
    )
    assert chain(text, "inward") == [
        "ip saddr 203.0.113.10/32 tcp dport 22 accept",
        "udp dport 1000-2000 accept",
        "ip saddr 172.31.0.0/16 ip protocol icmp accept",
        "icmp type 8 accept",
    ]


def test_a_rule_that_names_a_group_lets_its_members_in() -> None:
    own = group("sg-a", {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-a"}, {"GroupId": "sg-b"}]})
    text = ruleset([own], {"sg-a": {"172.31.0.5", "172.31.0.4"}, "sg-b": {"172.31.0.4", "172.31.0.9"}})
    assert chain(text, "inward") == [
        "ip saddr 172.31.0.4 meta nfproto ipv4 accept",
        "ip saddr 172.31.0.5 meta nfproto ipv4 accept",
        "ip saddr 172.31.0.9 meta nfproto ipv4 accept",
    ]


def test_egress_rules_narrow_what_may_leave() -> None:
    only_https = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    text = ruleset([group("sg-a", outward=only_https)], {})
    assert chain(text, "outward") == ["tcp dport 443 accept"]


def test_groups_add_up() -> None:
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    web = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    text = ruleset([group("sg-a", ssh), group("sg-b", web, ssh)], {})
    assert chain(text, "inward") == ["tcp dport 22 accept", "tcp dport 80 accept"]
