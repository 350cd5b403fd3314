"""Ids, filters, names, and things that are too new to be known; asked through boto3, instances are on paper."""

from __future__ import annotations

from typing import Any

import pytest

from moto_fixtures import TestCloud
from tests.moto_fixtures.test_strict import launch, refused


@pytest.mark.parametrize(
    ("call", "wanted", "code"),
    [
        ("describe_instances", {"InstanceIds": ["hello"]}, "InvalidInstanceID.Malformed"),
        ("terminate_instances", {"InstanceIds": ["i-123"]}, "InvalidInstanceID.Malformed"),
        ("delete_security_group", {"GroupId": "g"}, "InvalidGroupId.Malformed"),
        ("describe_instances", {"InstanceIds": ["i-11111111"]}, "InvalidInstanceID.NotFound"),
        ("create_security_group", {"GroupName": "sg-mine", "Description": "d"}, "InvalidParameterValue"),
        ("create_security_group", {"GroupName": "g" * 256, "Description": "d"}, "InvalidParameterValue"),
        ("create_security_group", {"GroupName": "g", "Description": "it's mine"}, "InvalidParameterValue"),
    ],
)
def test_names_have_a_form(light_cloud: TestCloud, call: str, wanted: dict[str, Any], code: str) -> None:
    with refused(code):
        getattr(light_cloud.client(), call)(**wanted)
    assert light_cloud.leftovers() == {}


@pytest.mark.parametrize(("count", "fits"), [(200, True), (201, False)])
def test_filters_have_200_values(light_cloud: TestCloud, count: int, fits: bool) -> None:
    ec2 = light_cloud.client()
    filters = [{"Name": "tag:x", "Values": [str(number) for number in range(100)]}]
    filters.append({"Name": "tag:y", "Values": [str(number) for number in range(count - 100)]})
    if fits:
        assert ec2.describe_instances(Filters=filters)["Reservations"] == []
    else:
        with refused("FilterLimitExceeded"):
            ec2.describe_instances(Filters=filters)


@pytest.mark.parametrize(
    ("resource", "code"),
    [
        ("i-11111111111111111", "InvalidInstanceID.NotFound"),
        ("sg-11111111111111111", "InvalidGroup.NotFound"),
        ("vol-11111111111111111", "InvalidVolume.NotFound"),
        ("eni-11111111111111111", "InvalidNetworkInterfaceID.NotFound"),
    ],
)
def test_what_is_not_there_gets_no_tags(light_cloud: TestCloud, resource: str, code: str) -> None:
    with refused(code):
        light_cloud.client().create_tags(Resources=[resource], Tags=[{"Key": "k", "Value": "v"}])


def test_the_type_changes_while_stopped_only(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    one = launch(light_cloud)[0]["InstanceId"]
    light_cloud.settle()
    with refused("IncorrectInstanceState"):
        ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "m5.xlarge"})
    ec2.stop_instances(InstanceIds=[one])
    light_cloud.settle()
    ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "m5.xlarge"})
    said = ec2.describe_instance_attribute(InstanceId=one, Attribute="instanceType")
    assert said["InstanceType"]["Value"] == "m5.xlarge"


def test_new_things_are_not_known_to_changes_for_a_while(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    light_cloud.known_after = 2
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    for _ in range(2):
        with refused("InvalidGroup.NotFound"):
            launch(light_cloud, SecurityGroupIds=[group])
    one = launch(light_cloud, SecurityGroupIds=[group])[0]["InstanceId"]
    tag = {"Resources": [one], "Tags": [{"Key": "k", "Value": "v"}]}
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(**tag)
    with refused("InvalidInstanceID.NotFound"):
        ec2.terminate_instances(InstanceIds=[one])
    ec2.create_tags(**tag)
    ec2.terminate_instances(InstanceIds=[one])
    light_cloud.settle()
    ec2.delete_security_group(GroupId=group)
    assert light_cloud.leftovers() == {}
