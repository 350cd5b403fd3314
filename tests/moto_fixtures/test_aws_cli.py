"""The `aws` command line and dec2 see the same cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moto_fixtures import TestCloud
from tests.dec2.paper import PaperNodes
from tests.dec2.test_ec2_api import spec, up


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, light_cloud: TestCloud) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEC2_CALLER_CIDR", f"{light_cloud.caller_address}/32")


pytestmark = pytest.mark.slow  # each command takes a second of CPU to start


def aws(cloud: TestCloud, *words: str) -> Any:
    """What `aws ec2 WORDS` prints; the text of its error if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "awscli", "ec2", *words, "--output", "json"],
        env={**os.environ, **cloud.environment(), "AWS_MAX_ATTEMPTS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        return done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_the_command_line_sees_the_cluster_that_dec2_made(light_cloud: TestCloud) -> None:
    up(spec(light_cloud, 2))
    light_cloud.settle()
    seen = PaperNodes().observe("c")
    found = aws(light_cloud, "describe-instances", "--filters", "Name=tag:dec2:cluster,Values=c")
    instances = [one for each in found["Reservations"] for one in each["Instances"]]
    assert {one["InstanceId"] for one in instances} == {node.id for node in seen.nodes}
    assert {one["State"]["Name"] for one in instances} == {"running"}
    assert all("dec2:cluster" in {tag["Key"] for tag in one["Tags"]} for one in instances)
    (group,) = aws(light_cloud, "describe-security-groups", "--group-names", "dec2-c")["SecurityGroups"]
    assert {one["SecurityGroups"][0]["GroupId"] for one in instances} == {group["GroupId"]}
    ports = {rule.get("FromPort") for rule in group["IpPermissions"]}
    assert ports == {22, None}
    refusal = aws(light_cloud, "delete-security-group", "--group-id", group["GroupId"])
    assert "(DependencyViolation)" in refusal


def test_what_the_command_line_launches_is_what_boto3_sees(light_cloud: TestCloud) -> None:
    words = ["run-instances", "--image-id", light_cloud.image_id, "--instance-type", "m5.large"]
    words += ["--count", "1:3", "--key-name", light_cloud.key_name, "--user-data", "#cloud-config"]
    words += ["--instance-market-options", "MarketType=spot", "--client-token", "t"]
    words += ["--tag-specifications", "ResourceType=network-interface,Tags=[{Key=k,Value=v}]"]
    light_cloud.capacity.set("m5.large", "*", 2)
    launched = aws(light_cloud, *words)["Instances"]
    again = aws(light_cloud, *words)["Instances"]
    assert len(launched) == 2
    assert [one["InstanceId"] for one in launched] == [one["InstanceId"] for one in again]
    assert all(one["SpotInstanceRequestId"].startswith("sir-") for one in launched)
    assert light_cloud.paper(launched[0]["InstanceId"]).user_data == b"#cloud-config"
    ec2 = light_cloud.client()
    tagged = ec2.describe_network_interfaces(Filters=[{"Name": "tag:k", "Values": ["v"]}])["NetworkInterfaces"]
    assert {each["Attachment"]["InstanceId"] for each in tagged} == {one["InstanceId"] for one in launched}
    assert "(DryRunOperation)" in aws(light_cloud, *words[:5], "--dry-run")
    assert "(IdempotentParameterMismatch)" in aws(light_cloud, *words, "--ebs-optimized")
