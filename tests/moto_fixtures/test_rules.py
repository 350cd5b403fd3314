"""Quotas, spot, groups, tags, states, images and prices, asked through boto3; instances are on paper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moto_fixtures import TestCloud
from tests.moto_fixtures.test_strict import described, launch, refused

SPOT: dict[str, Any] = {"InstanceMarketOptions": {"MarketType": "spot"}}


def tags(count: int) -> list[dict[str, str]]:
    return [{"Key": f"k{number}", "Value": "v"} for number in range(count)]


def group(cloud: TestCloud, name: str = "g") -> str:
    return str(cloud.client().create_security_group(GroupName=name, Description="d")["GroupId"])


# -- spot and quotas


def test_on_demand_and_spot_have_quotas_of_their_own(light_cloud: TestCloud) -> None:
    light_cloud.capacity.vcpus_max, light_cloud.capacity.spot_vcpus_max = 2, 4
    launch(light_cloud, MinCount=2, MaxCount=2, **SPOT)
    with refused("MaxSpotInstanceCountExceeded"):
        launch(light_cloud, **SPOT)
    launch(light_cloud)
    with refused("VcpuLimitExceeded"):
        launch(light_cloud)


def test_a_spot_instance_has_a_request(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud, **SPOT)
    assert one["SpotInstanceRequestId"].startswith("sir-")
    (seen,) = described(light_cloud, one["InstanceId"])
    assert (seen["SpotInstanceRequestId"], seen["InstanceLifecycle"]) == (one["SpotInstanceRequestId"], "spot")
    asked = ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[one["SpotInstanceRequestId"]])
    (request,) = asked["SpotInstanceRequests"]
    assert (request["State"], request["InstanceId"], request["Type"]) == ("active", one["InstanceId"], "one-time")
    light_cloud.settle()
    light_cloud.reclaim(one["InstanceId"])
    (request,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert (request["State"], request["Status"]["Code"]) == ("closed", "instance-terminated-no-capacity")
    with refused("InvalidSpotInstanceRequestID.NotFound"):
        ec2.describe_spot_instance_requests(SpotInstanceRequestIds=["sir-00000000"])
    (plain,) = launch(light_cloud)
    assert "SpotInstanceRequestId" not in plain


def test_only_a_persistent_spot_instance_can_be_stopped(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (once,) = launch(light_cloud, **SPOT)
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    (lasting,) = launch(light_cloud, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": options})
    light_cloud.settle()
    with refused("UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[once["InstanceId"]])
    ec2.stop_instances(InstanceIds=[lasting["InstanceId"]])
    with refused("InvalidParameterCombination"):
        launch(
            light_cloud,
            InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"InstanceInterruptionBehavior": "stop"}},
        )


# -- groups and interfaces


def test_a_group_has_60_rules_in_a_direction(light_cloud: TestCloud) -> None:
    ec2, one = light_cloud.client(), group(light_cloud)

    def ports(first: int, count: int) -> list[dict[str, Any]]:
        ranges = [{"CidrIp": "198.51.100.0/24"}]
        return [
            {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": ranges}
            for port in range(first, first + count)
        ]

    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=ports(1, 59))
    with refused("RulesPerSecurityGroupLimitExceeded"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=ports(100, 2))
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=ports(100, 1))
    with refused("RulesPerSecurityGroupLimitExceeded"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=ports(101, 1))


def test_a_rule_comes_once(light_cloud: TestCloud) -> None:
    ec2, one = light_cloud.client(), group(light_cloud)
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
    described_rule = {**rule, "IpRanges": [{"CidrIp": "198.51.100.7/32", "Description": "me"}]}
    with refused("InvalidParameterValue"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[rule, described_rule])
    ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[rule])
    with refused("InvalidPermission.Duplicate"):
        ec2.authorize_security_group_ingress(GroupId=one, IpPermissions=[rule])


def test_an_interface_has_5_groups(light_cloud: TestCloud) -> None:
    groups = [group(light_cloud, f"g{number}") for number in range(6)]
    launch(light_cloud, SecurityGroupIds=groups[:5])
    with refused("SecurityGroupsPerInterfaceLimitExceeded"):
        launch(light_cloud, SecurityGroupIds=groups)


def test_a_subnet_has_so_many_addresses(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="172.31.255.240/28")["Subnet"]["SubnetId"]
    launch(light_cloud, SubnetId=subnet, MinCount=10, MaxCount=10)
    with refused("InsufficientFreeAddressesInSubnet"):
        launch(light_cloud, SubnetId=subnet, MinCount=2, MaxCount=2)
    ec2.create_network_interface(SubnetId=subnet)
    with refused("InsufficientFreeAddressesInSubnet"):
        ec2.create_network_interface(SubnetId=subnet)


def test_an_attached_interface_stays(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud)
    (seen,) = described(light_cloud, one["InstanceId"])
    with refused("InvalidParameterValue"):
        ec2.delete_network_interface(NetworkInterfaceId=seen["NetworkInterfaces"][0]["NetworkInterfaceId"])


def test_an_interface_is_made_once_per_token(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    subnets = [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]]
    made = [ec2.create_network_interface(SubnetId=subnets[0], ClientToken="t") for _ in range(2)]
    assert len({each["NetworkInterface"]["NetworkInterfaceId"] for each in made}) == 1
    with refused("IdempotentParameterMismatch"):
        ec2.create_network_interface(SubnetId=subnets[1], ClientToken="t")
    assert len(light_cloud.leftovers()["interfaces"]) == 1


# -- tags


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (tags(51), "TagLimitExceeded"),
        ([{"Key": "aws:mine", "Value": "v"}], "InvalidParameterValue"),
        ([{"Key": "k" * 129, "Value": "v"}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v"}, {"Key": "k", "Value": "w"}], "InvalidParameterValue"),
    ],
)
def test_tags_have_limits(light_cloud: TestCloud, wrong: list[dict[str, str]], code: str) -> None:
    ec2, one = light_cloud.client(), group(light_cloud)
    with refused(code):
        ec2.create_tags(Resources=[one], Tags=wrong)
    with refused(code):
        launch(light_cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": wrong}])
    assert light_cloud.leftovers() == {"groups": [one]}


def test_a_resource_has_50_tags_over_all_calls(light_cloud: TestCloud) -> None:
    ec2, one = light_cloud.client(), group(light_cloud)
    ec2.create_tags(Resources=[one], Tags=tags(50))
    ec2.create_tags(Resources=[one], Tags=[{"Key": "k0", "Value": "another"}])
    with refused("TagLimitExceeded"):
        ec2.create_tags(Resources=[one], Tags=[{"Key": "more", "Value": "v"}])
    ec2.delete_tags(Resources=[one], Tags=[{"Key": "k0"}])
    ec2.create_tags(Resources=[one], Tags=[{"Key": "more", "Value": "v"}])
    with refused("InvalidParameterValue"):
        ec2.delete_tags(Resources=[one], Tags=[{"Key": "aws:mine"}])


def test_volumes_get_their_tags_at_creation(light_cloud: TestCloud) -> None:
    (one,) = launch(light_cloud, TagSpecifications=[{"ResourceType": "volume", "Tags": tags(1)}])
    (volume,) = light_cloud.client().describe_volumes(Filters=[{"Name": "tag:k0", "Values": ["v"]}])["Volumes"]
    assert volume["Attachments"][0]["InstanceId"] == one["InstanceId"]


# -- states


def test_user_data_changes_while_stopped_only(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud, UserData="first")
    light_cloud.settle()
    wanted = {"InstanceId": one["InstanceId"], "UserData": {"Value": b"second"}}
    with refused("IncorrectInstanceState"):
        ec2.modify_instance_attribute(**wanted)
    ec2.stop_instances(InstanceIds=[one["InstanceId"]])
    light_cloud.settle()
    with refused("InvalidParameterValue"):
        ec2.modify_instance_attribute(InstanceId=one["InstanceId"], UserData={"Value": b"#" * 16385})
    ec2.modify_instance_attribute(**wanted)
    ec2.start_instances(InstanceIds=[one["InstanceId"]])
    assert light_cloud.paper(one["InstanceId"]).user_data == b"second"


def test_an_instance_on_its_way_out_cannot_be_rebooted(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud)
    light_cloud.settle()
    ec2.terminate_instances(InstanceIds=[one["InstanceId"]])
    for call in (ec2.reboot_instances, ec2.start_instances, ec2.stop_instances):
        with refused("IncorrectInstanceState"):
            call(InstanceIds=[one["InstanceId"]])


# -- keys, images, offerings, routes, prices


def test_key_pairs_are_unique(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (pair,) = ec2.describe_key_pairs(KeyNames=[light_cloud.key_name], IncludePublicKey=True)["KeyPairs"]
    assert (pair["KeyType"], pair["PublicKey"].split()[0]) == ("ed25519", "ssh-ed25519")
    with refused("InvalidKeyPair.Duplicate"):
        ec2.import_key_pair(KeyName=light_cloud.key_name, PublicKeyMaterial=pair["PublicKey"].encode())
    with refused("InvalidKey.Format"):
        ec2.import_key_pair(KeyName="other", PublicKeyMaterial=b"nonsense")


@pytest.mark.parametrize(
    ("parameter", "owner", "device"),
    [
        (
            "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
            "099720109477",
            "/dev/sda1",
        ),
        ("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", "137112412989", "/dev/xvda"),
    ],
)
def test_images_of_others(light_cloud: TestCloud, parameter: str, owner: str, device: str) -> None:
    ec2 = light_cloud.client()
    value = light_cloud.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    (image,) = ec2.describe_images(ImageIds=[value])["Images"]
    assert (image["OwnerId"], image["RootDeviceName"]) == (owner, device)
    (one,) = launch(light_cloud, ImageId=f"resolve:ssm:{parameter}")
    (seen,) = described(light_cloud, one["InstanceId"])
    assert [mapping["DeviceName"] for mapping in seen["BlockDeviceMappings"]] == [device]


def test_unknown_parameters_are_named(light_cloud: TestCloud) -> None:
    ssm = light_cloud.client("ssm")
    known = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
    answer = ssm.get_parameters(Names=[known, "/nobody/knows"])
    assert ([each["Name"] for each in answer["Parameters"]], answer["InvalidParameters"]) == (
        [known],
        ["/nobody/knows"],
    )
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name="/nobody/knows")


def test_offerings_and_routes(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    asked = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["m5.large"]}]
    )
    assert "us-east-1a" in {each["Location"] for each in asked["InstanceTypeOfferings"]}
    (main,) = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["true"]}])["RouteTables"]
    assert "172.31.0.0/16" in {route["DestinationCidrBlock"] for route in main["Routes"]}


def test_prices(light_cloud: TestCloud) -> None:
    def price(**wanted: str) -> list[float]:
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        answer = light_cloud.client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)
        found = []
        for text in answer["PriceList"]:
            (term,) = json.loads(text)["terms"]["OnDemand"].values()
            (dimension,) = term["priceDimensions"].values()
            found.append(float(dimension["pricePerUnit"]["USD"]))
        return found

    assert price(instanceType="m5.large", regionCode="us-east-1", operatingSystem="Linux") == [0.096]
    assert price(instanceType="m5.large", operatingSystem="Windows") == []
    assert len(price()) > 10
    with refused("InvalidParameterException"):
        light_cloud.client("pricing").get_products(ServiceCode="AmazonS3")
    history = light_cloud.client().describe_spot_price_history(InstanceTypes=["m5.large"], MaxResults=5)
    assert {each["InstanceType"] for each in history["SpotPriceHistory"]} == {"m5.large"}
