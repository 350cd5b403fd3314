"""Kill points by the hundred: a procedure that goes by names and tokens is cut at every call, and done again."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from moto_fixtures import TestCloud
from tests.moto_fixtures.test_strict import described, launch

COUNT = 3


def make(cloud: TestCloud, ec2: Any) -> None:
    """A group, and two launches in it, that can be repeated from anywhere."""
    try:
        group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidGroup.Duplicate":
            raise
        named = [{"Name": "group-name", "Values": ["g"]}]
        group = ec2.describe_security_groups(Filters=named)["SecurityGroups"][0]["GroupId"]
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    try:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
            raise
    for number, count in enumerate((1, COUNT - 1)):
        ec2.run_instances(
            ImageId=cloud.image_id,
            InstanceType="m5.large",
            MinCount=count,
            MaxCount=count,
            SecurityGroupIds=[group],
            ClientToken=f"{group} {number}",
        )


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_kill_point_converges(when: str) -> None:
    for k in range(1, 5):
        with TestCloud(machines=False) as cloud:
            ec2 = cloud.direct_client()
            order = cloud.faults.kill_before if when == "before" else cloud.faults.kill_after
            fault = order(k)
            with pytest.raises(BotoCoreError):
                make(cloud, ec2)
            assert (fault.struck, len(cloud.calls)) == (1, k)
            cloud.faults.clear()
            make(cloud, ec2)
            assert len(cloud.leftovers()["instances"]) == COUNT
            assert cloud.failures() == []


def test_faults_by_chance_are_the_same_for_the_same_seed() -> None:
    def outcomes(seed: int) -> list[str]:
        with TestCloud(machines=False) as cloud:
            cloud.faults.by_chance(seed, throttle=0.2, lose_request=0.1, lose_reply=0.1)
            ec2 = cloud.direct_client()
            for _ in range(60):
                try:
                    ec2.describe_vpcs()
                except (BotoCoreError, ClientError):
                    pass
            return [logged.outcome for logged in cloud.calls]

    first = outcomes(1)
    assert {"ok", "lost", "RequestLimitExceeded"} == set(first)
    assert 6 <= first.count("RequestLimitExceeded") <= 22
    assert outcomes(1) == first != outcomes(2)


def test_a_kill_at_the_second_call_of_an_action(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.direct_client()
    light_cloud.faults.kill_after(2, "CreateSecurityGroup")
    ec2.create_security_group(GroupName="a", Description="d")
    ec2.describe_vpcs()
    with pytest.raises(BotoCoreError):
        ec2.create_security_group(GroupName="b", Description="d")
    assert len(light_cloud.leftovers()["groups"]) == 2


def test_a_direct_client_and_one_over_http_see_the_same(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud)
    direct = light_cloud.direct_client().describe_instances(InstanceIds=[one["InstanceId"]])
    (far,) = described(light_cloud, one["InstanceId"])
    near = direct["Reservations"][0]["Instances"][0]
    assert {**near, "State": None} == {**far, "State": None}
    stored = light_cloud.direct_client("ssm").get_parameters(Names=["/nobody"])
    assert stored["InvalidParameters"] == ["/nobody"]


def test_a_client_does_not_outlive_its_cloud() -> None:
    with TestCloud(machines=False) as cloud:
        near, far = cloud.direct_client(), cloud.client()
        near.describe_vpcs()
        far.describe_vpcs()
    for client in (near, far):
        with pytest.raises(BotoCoreError):
            client.describe_vpcs()


# -- how launches end


def test_launches_end_as_ordered(light_cloud: TestCloud) -> None:
    light_cloud.boots.dies(1)
    light_cloud.boots.never(2)
    light_cloud.boots.late(3, looks=2)
    ids = [one["InstanceId"] for one in launch(light_cloud, MinCount=4, MaxCount=4)]
    seen = []
    for _ in range(5):
        by_id = {one["InstanceId"]: one for one in described(light_cloud, *ids)}
        seen.append([by_id[each]["State"]["Name"] for each in ids])
    assert seen[0] == ["pending"] * 4
    assert seen[1] == ["terminated", "pending", "pending", "running"]
    assert seen[-1] == ["terminated", "pending", "running", "running"]
    assert by_id[ids[0]]["StateReason"]["Code"] == "Server.InternalError"
    light_cloud.settle()
    assert light_cloud.state(ids[1]) == "pending"
    light_cloud.client().terminate_instances(InstanceIds=ids)
    light_cloud.settle()
    assert light_cloud.leftovers() == {}


def test_launches_by_chance_are_the_same_for_the_same_seed() -> None:
    def states(seed: int) -> list[str | None]:
        with TestCloud(machines=False) as cloud:
            cloud.boots.by_chance(seed, dies=0.3, never=0.3)
            ids = [
                one["InstanceId"]
                for one in cloud.direct_client().run_instances(
                    ImageId=cloud.image_id, InstanceType="m5.large", MinCount=30, MaxCount=30
                )["Instances"]
            ]
            cloud.settle()
            return [cloud.state(each) for each in ids]

    first = states(7)
    assert set(first) == {"running", "pending", "terminated"}
    assert states(7) == first != states(8)
