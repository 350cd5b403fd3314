"""Faults on demand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from moto_fixtures import TestCloud

LAUNCH = """
import boto3
ec2 = boto3.client("ec2")
ec2.describe_instances()
ec2.create_security_group(GroupName="g", Description="d")
ec2.describe_instances()
print("survived")
"""


def patient(cloud: TestCloud) -> object:
    """A client that tries again, as boto3 does by itself."""
    return boto3.client("ec2", config=Config(retries={"mode": "standard", "total_max_attempts": 4}))


def run_caller(cloud: TestCloud) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **cloud.environment()}
    return subprocess.run([sys.executable, "-c", LAUNCH], env=environment, capture_output=True, text=True)


def test_errors_come_as_often_as_ordered_and_nothing_is_done(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    light_cloud.faults.error("CreateSecurityGroup", "InternalError", status=500, times=1, skip=1)
    ec2.create_security_group(GroupName="a", Description="d")
    with pytest.raises(ClientError, match="InternalError"):
        ec2.create_security_group(GroupName="b", Description="d")
    ec2.create_security_group(GroupName="c", Description="d")
    assert len(light_cloud.leftovers()["groups"]) == 2
    assert [logged.outcome for logged in light_cloud.calls] == ["ok", "InternalError", "ok"]


def test_orders_for_the_same_call_come_one_after_the_other(light_cloud: TestCloud) -> None:
    light_cloud.faults.error("DescribeVpcs", "First")
    light_cloud.faults.error("DescribeVpcs", "Second")
    for code in ("First", "Second"):
        with pytest.raises(ClientError, match=code):
            light_cloud.client().describe_vpcs()
    light_cloud.client().describe_vpcs()


@pytest.mark.slow
def test_a_client_that_tries_again_gets_through_throttling(light_cloud: TestCloud) -> None:
    light_cloud.faults.throttle("DescribeVpcs", times=2)
    patient(light_cloud).describe_vpcs()  # type: ignore[attr-defined]
    assert [logged.outcome for logged in light_cloud.calls] == ["RequestLimitExceeded"] * 2 + ["ok"]


def test_a_lost_answer_and_the_same_token_launch_one_instance(light_cloud: TestCloud) -> None:
    light_cloud.faults.lose_reply("RunInstances")
    ec2 = patient(light_cloud)
    ec2.run_instances(ImageId=light_cloud.image_id, InstanceType="m5.large", MinCount=1, MaxCount=1)  # type: ignore[attr-defined]
    assert light_cloud.actions() == ["RunInstances", "RunInstances"]
    assert len(light_cloud.leftovers()["instances"]) == 1


def test_a_lost_request_is_not_carried_out(light_cloud: TestCloud) -> None:
    light_cloud.faults.lose_request("CreateSecurityGroup")
    with pytest.raises(BotoCoreError):
        light_cloud.client().create_security_group(GroupName="g", Description="d")
    assert light_cloud.leftovers() == {}
    assert light_cloud.calls[-1].outcome == "lost"


@pytest.mark.parametrize(("moment", "groups"), [("before", 0), ("after", 1)])
def test_a_caller_in_another_process_is_killed_at_the_exact_call(
    light_cloud: TestCloud, moment: str, groups: int
) -> None:
    order = {"before": light_cloud.faults.kill_before, "after": light_cloud.faults.kill_after}[moment]
    order(2)
    caller = run_caller(light_cloud)
    assert caller.returncode == -signal.SIGKILL
    assert light_cloud.actions() == ["DescribeInstances", "CreateSecurityGroup"]
    assert light_cloud.calls[-1].outcome == "killed"
    assert len(light_cloud.leftovers().get("groups", [])) == groups
    assert light_cloud.faults.unused() == []
    assert run_caller(light_cloud).returncode == (1 if groups else 0)  # a duplicate group, or none yet


def test_a_caller_in_this_process_is_cut_off_instead(light_cloud: TestCloud) -> None:
    light_cloud.faults.kill_after(1)
    ec2 = light_cloud.client()
    for _ in range(2):
        with pytest.raises(BotoCoreError):
            ec2.create_security_group(GroupName="g", Description="d")
    light_cloud.faults.clear()
    assert len(light_cloud.leftovers()["groups"]) == 1
    ec2.describe_vpcs()


def test_a_denied_call_is_named(light_cloud: TestCloud) -> None:
    light_cloud.faults.deny("DescribeImages")
    for _ in range(2):
        with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:DescribeImages"):
            light_cloud.client().describe_images()


def test_orders_that_never_struck_can_be_seen(light_cloud: TestCloud) -> None:
    fault = light_cloud.faults.error("RunInstances", "InternalError", when=lambda call: call.truth("DryRun"))
    light_cloud.client().describe_vpcs()
    assert light_cloud.faults.unused() == [fault]
