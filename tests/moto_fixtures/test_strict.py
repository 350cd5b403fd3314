"""The rules that moto leaves out, asked through boto3; instances are on paper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from moto_fixtures import TestCloud
from moto_fixtures.host import architecture

DEBIAN = "/aws/service/debian/release/12/latest/" + {"x86_64": "amd64"}.get(architecture(), architecture())


@contextlib.contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[ClientError]]:
    with pytest.raises(ClientError) as caught:
        yield caught
    assert caught.value.response["Error"]["Code"] == code


def launch(cloud: TestCloud, **more: Any) -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {
        "ImageId": cloud.image_id,
        "InstanceType": "m5.large",
        "MinCount": 1,
        "MaxCount": 1,
        **more,
    }
    instances: list[dict[str, Any]] = cloud.client().run_instances(**wanted)["Instances"]
    return instances


def described(cloud: TestCloud, *ids: str) -> list[dict[str, Any]]:
    answer = cloud.client().describe_instances(InstanceIds=list(ids))
    return [one for reservation in answer["Reservations"] for one in reservation["Instances"]]


# -- client tokens


def test_a_repeated_token_launches_nothing_and_gets_the_same_answer(light_cloud: TestCloud) -> None:
    first = launch(light_cloud, ClientToken="t")
    second = launch(light_cloud, ClientToken="t")
    assert [one["InstanceId"] for one in first] == [one["InstanceId"] for one in second]
    assert len(light_cloud.leftovers()["instances"]) == 1


def test_a_token_with_other_parameters_is_refused(light_cloud: TestCloud) -> None:
    launch(light_cloud, ClientToken="t")
    with refused("IdempotentParameterMismatch"):
        launch(light_cloud, ClientToken="t", InstanceType="c5.large")
    assert len(light_cloud.leftovers()["instances"]) == 1


def test_a_token_of_terminated_instances_is_refused(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud, ClientToken="t")
    light_cloud.client().terminate_instances(InstanceIds=[one["InstanceId"]])
    light_cloud.settle()
    with refused("IdempotentInstanceTerminated"):
        launch(light_cloud, ClientToken="t")


def test_a_failed_call_does_not_use_its_token_up(light_cloud: TestCloud) -> None:
    light_cloud.capacity.set("m5.large", "*", 0)
    with refused("InsufficientInstanceCapacity"):
        launch(light_cloud, ClientToken="t")
    light_cloud.capacity.set("m5.large", "*", 1)
    assert len(launch(light_cloud, ClientToken="t")) == 1


def test_a_dry_run_does_not_use_its_token_up(light_cloud: TestCloud) -> None:
    with refused("DryRunOperation"):
        launch(light_cloud, ClientToken="t", DryRun=True)
    assert light_cloud.leftovers() == {}
    assert len(launch(light_cloud, ClientToken="t")) == 1


# -- parameters of RunInstances


def test_user_data_has_16_kilobytes_at_most(light_cloud: TestCloud) -> None:
    launch(light_cloud, UserData="#" * 16384)
    with refused("InvalidParameterValue"):
        launch(light_cloud, UserData="#" * 16385)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"InstanceType": "zz.large"}, "InvalidInstanceType.NotFound"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"ImageId": "ami-11111111111111111"}, "InvalidAMIID.NotFound"),
        ({"SecurityGroupIds": ["sg-11111111111111111"]}, "InvalidGroup.NotFound"),
        (
            {"NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-11111111111111111"]}]},
            "InvalidGroup.NotFound",
        ),
        ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterValue"),
        ({"MaxCount": 2, "PrivateIpAddress": "172.31.0.20"}, "InvalidParameterCombination"),
        ({"ImageId": "resolve:ssm:/nobody/knows"}, "InvalidParameterValue"),
    ],
)
def test_wrong_parameters_are_refused(light_cloud: TestCloud, change: dict[str, Any], code: str) -> None:
    with refused(code):
        launch(light_cloud, **change)
    assert light_cloud.leftovers() == {}


def test_interfaces_exclude_groups_of_the_instance(light_cloud: TestCloud) -> None:
    group = light_cloud.client().create_security_group(GroupName="g", Description="d")["GroupId"]
    with refused("InvalidParameterCombination"):
        launch(light_cloud, SecurityGroupIds=[group], NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group]}])


def test_a_fixed_address_belongs_to_one_instance(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud, PrivateIpAddress="172.31.0.20")
    assert one["PrivateIpAddress"] == "172.31.0.20"
    with refused("InvalidIPAddress.InUse"):
        launch(light_cloud, PrivateIpAddress="172.31.0.20")


def test_the_image_looks_like_debians(light_cloud: TestCloud) -> None:
    found = light_cloud.client().describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-*"]}]
    )
    (image,) = found["Images"]
    assert image["ImageId"] == light_cloud.image_id
    (mapping,) = image["BlockDeviceMappings"]
    assert (mapping["DeviceName"], image["RootDeviceName"]) == ("/dev/xvda", "/dev/xvda")
    assert (mapping["Ebs"]["VolumeSize"], mapping["Ebs"]["DeleteOnTermination"]) == (8, True)


def test_the_image_can_be_named_by_its_public_parameter(light_cloud: TestCloud) -> None:
    held = light_cloud.client("ssm").get_parameter(Name=DEBIAN)["Parameter"]
    assert held["Value"] == light_cloud.image_id
    (one,) = launch(light_cloud, ImageId=f"resolve:ssm:{DEBIAN}")
    assert one["ImageId"] == light_cloud.image_id


def test_interface_tags_and_groups_of_a_launch_are_kept(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    tags = [{"Key": "cluster", "Value": "c"}]
    (one,) = launch(
        light_cloud,
        NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group], "AssociatePublicIpAddress": True}],
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )
    (interface,) = ec2.describe_network_interfaces(Filters=[{"Name": "tag:cluster", "Values": ["c"]}])[
        "NetworkInterfaces"
    ]
    assert interface["Attachment"]["InstanceId"] == one["InstanceId"]
    (seen,) = described(light_cloud, one["InstanceId"])
    assert [entry["GroupId"] for entry in seen["SecurityGroups"]] == [group]


def test_addresses_are_of_documentation_ranges(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud)
    (seen,) = described(light_cloud, one["InstanceId"])
    assert seen["PublicIpAddress"].startswith("198.51.100.")
    assert seen["PrivateIpAddress"].startswith("172.31.")


# -- capacity


def test_max_count_is_served_as_far_as_capacity_goes(light_cloud: TestCloud) -> None:
    light_cloud.capacity.set("m5.large", "*", 3)
    assert len(launch(light_cloud, MinCount=1, MaxCount=5)) == 3


def test_a_zone_that_is_full_is_named_with_those_that_are_not(light_cloud: TestCloud) -> None:
    light_cloud.capacity.set("m5.large", "us-east-1a", 1)
    launch(light_cloud, Placement={"AvailabilityZone": "us-east-1a"})
    with refused("InsufficientInstanceCapacity") as caught:
        launch(light_cloud, Placement={"AvailabilityZone": "us-east-1a"})
    assert "choosing us-east-1b" in caught.value.response["Error"]["Message"]
    (other,) = launch(light_cloud)
    assert other["Placement"]["AvailabilityZone"] != "us-east-1a"


def test_terminated_instances_give_their_capacity_back(light_cloud: TestCloud) -> None:
    light_cloud.capacity.set("m5.large", "*", 1)
    zone = {"Placement": {"AvailabilityZone": "us-east-1a"}}
    (one,) = launch(light_cloud, **zone)
    light_cloud.client().terminate_instances(InstanceIds=[one["InstanceId"]])
    assert len(launch(light_cloud, **zone)) == 1


def test_the_quota_counts_vcpus(light_cloud: TestCloud) -> None:
    light_cloud.capacity.vcpus_max = 5
    assert len(launch(light_cloud, MinCount=1, MaxCount=9)) == 2  # m5.large has two
    with refused("VcpuLimitExceeded"):
        launch(light_cloud)


# -- groups, volumes and interfaces


def test_a_group_goes_only_when_nothing_uses_it(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    (one,) = launch(light_cloud, SecurityGroupIds=[group])
    light_cloud.settle()
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    assert light_cloud.state(one["InstanceId"]) == "shutting-down"
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    light_cloud.settle()
    ec2.delete_security_group(GroupId=group)
    assert light_cloud.leftovers() == {}


def test_a_group_that_another_groups_rule_names_stays(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    named = ec2.create_security_group(GroupName="named", Description="d")["GroupId"]
    naming = ec2.create_security_group(GroupName="naming", Description="d")["GroupId"]
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}]
    ec2.authorize_security_group_ingress(GroupId=naming, IpPermissions=rule)
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=named)
    ec2.delete_security_group(GroupId=naming)
    ec2.delete_security_group(GroupId=named)


def test_a_group_may_name_itself_and_go(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    ec2.delete_security_group(GroupId=group)
    assert light_cloud.leftovers() == {}


def test_volumes_and_interfaces_go_when_the_machine_is_gone(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud)
    light_cloud.settle()
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    assert set(light_cloud.leftovers()) == {"instances", "volumes", "interfaces"}
    light_cloud.settle()
    assert light_cloud.leftovers() == {}
    assert ec2.describe_volumes()["Volumes"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])  # again: no error, as on EC2


def test_what_is_to_be_kept_outlives_the_instance(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(
        light_cloud,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20}},
            {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 30, "DeleteOnTermination": False}},
        ],
        NetworkInterfaces=[{"DeviceIndex": 0, "DeleteOnTermination": False}],
    )
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    light_cloud.settle()
    assert [volume["Size"] for volume in ec2.describe_volumes()["Volumes"]] == [30]
    (interface,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert interface["Status"] == "available"
    ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])


def test_the_root_volume_has_the_device_name_of_the_image(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud)
    (seen,) = described(light_cloud, one["InstanceId"])
    (mapping,) = seen["BlockDeviceMappings"]
    assert (mapping["DeviceName"], seen["RootDeviceName"]) == ("/dev/xvda", "/dev/xvda")
    assert mapping["Ebs"]["DeleteOnTermination"] is True


# -- eventual consistency


def test_new_things_are_invisible_for_a_while(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    light_cloud.visible_after = 2
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    (one,) = launch(light_cloud)
    mine = [{"Name": "group-name", "Values": ["g"]}]
    seen = [len(ec2.describe_security_groups(Filters=mine)["SecurityGroups"]) for _ in range(3)]
    assert seen == [0, 0, 1]
    with refused("InvalidInstanceID.NotFound"):
        described(light_cloud, one["InstanceId"])
    assert ec2.describe_instances()["Reservations"] == []
    assert len(described(light_cloud, one["InstanceId"])) == 1
    with refused("InvalidGroup.Duplicate"):
        ec2.create_security_group(GroupName="g", Description="d")
    assert light_cloud.leftovers()["groups"] == [group]


# -- filters that moto lacks


def test_instances_can_be_found_by_client_token(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud, ClientToken="mine")
    launch(light_cloud, ClientToken="other")
    found = light_cloud.client().describe_instances(Filters=[{"Name": "client-token", "Values": ["mine"]}])
    assert [entry["InstanceId"] for r in found["Reservations"] for entry in r["Instances"]] == [one["InstanceId"]]


def test_what_moto_cannot_do_is_said_at_once(light_cloud: TestCloud) -> None:
    launch(light_cloud)
    with refused("UnsupportedOperation"):
        light_cloud.client().describe_instances(Filters=[{"Name": "launch-time", "Values": ["x"]}])


def test_two_clouds_do_not_see_each_other(light_cloud: TestCloud) -> None:
    launch(light_cloud)
    with TestCloud(machines=False) as other:
        assert other.leftovers() == {}
        assert other.client("sts").get_caller_identity() != light_cloud.client("sts").get_caller_identity()
