"""EC2 shows what was made only after a while, and takes only so much: dec2 must live with both."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from dec2 import tags
from dec2.errors import ProviderError, WrongUsage
from dec2.providers.ec2 import caller
from dec2.providers.ec2.caller import caller_cidr
from moto_fixtures import TestCloud
from tests.dec2.paper import PaperNodes
from tests.dec2.test_ec2_api import destroy, spec, up, up_options


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, light_cloud: TestCloud) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEC2_CALLER_CIDR", f"{light_cloud.caller_address}/32")


@pytest.mark.slow
@pytest.mark.parametrize("describes", [1, 2, 4])
def test_up_waits_for_what_is_not_shown_yet(light_cloud: TestCloud, describes: int) -> None:
    light_cloud.visible_after = describes
    report = up(spec(light_cloud, 3))
    assert len(report.inventory.nodes) == 3
    light_cloud.visible_after = 0
    while not PaperNodes().observe("c").exists:
        pass  # what the next process is shown comes with each look
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_a_resumed_up_finds_what_is_not_shown_yet(light_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process comes at once after the first one's end: the client tokens find what it cannot see."""
    up(spec(light_cloud, 3))
    light_cloud.visible_after = 3
    # A worker more, whose instance only the first process knows of.
    grown = up(spec(light_cloud, 4))
    again = up(spec(light_cloud, 4))
    assert {node.id for node in again.inventory.nodes} == {node.id for node in grown.inventory.nodes}
    light_cloud.visible_after = 0
    light_cloud.settle()
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_destroy_ends_instances_that_were_not_shown_to_it(light_cloud: TestCloud) -> None:
    """The group is a fence: it cannot be deleted while there is anything in it."""
    up(spec(light_cloud, 2))
    light_cloud.settle()
    light_cloud.visible_after = 6
    up(spec(light_cloud, 4))
    destroy()
    light_cloud.visible_after = 0
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_a_new_group_that_other_calls_do_not_know_yet(light_cloud: TestCloud) -> None:
    text = "The security group does not exist"
    first = light_cloud.faults.error("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound", message=text, times=2)
    second = light_cloud.faults.error("RunInstances", "InvalidGroup.NotFound", message=text, times=2)
    assert len(up(spec(light_cloud, 3)).inventory.nodes) == 3
    assert (first.struck, second.struck) == (2, 2)
    late = light_cloud.faults.error("TerminateInstances", "InvalidInstanceID.NotFound", message=text, times=1)
    destroy()
    assert late.struck == 1
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_a_group_that_exists_and_is_not_shown_is_adopted(light_cloud: TestCloud) -> None:
    up(spec(light_cloud, 2))
    destroy()
    light_cloud.visible_after = 2
    provider = PaperNodes()
    assert provider.observe("c").group is None
    made = provider.api.create_group("c", None, tags.group_tags("c", "core", "admin", "k", {}))
    light_cloud.settle()
    late = PaperNodes()
    assert (
        late.api.create_group("c", None, tags.group_tags("c", "core", "admin", "k", {}))["GroupId"] == made["GroupId"]
    )
    light_cloud.visible_after = 0
    destroy()
    assert light_cloud.leftovers() == {}


def test_a_group_of_that_name_that_is_not_ours_stays(light_cloud: TestCloud) -> None:
    theirs = light_cloud.client("ec2").create_security_group(GroupName="dec2-c", Description="theirs")["GroupId"]
    with pytest.raises(ProviderError, match="is not dec2's; choose another --name"):
        up(spec(light_cloud, 2))
    assert light_cloud.leftovers() == {"groups": [theirs]}


@pytest.mark.slow
def test_no_filter_has_more_values_than_ec2_takes(light_cloud: TestCloud) -> None:
    up(spec(light_cloud, 250))
    destroy()
    for call in light_cloud.calls:
        assert not [name for name in call.parameters if re.fullmatch(r"Filter\.\d+\.Value\.201", name)]
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_destroy_makes_as_many_calls_for_250_as_for_2(light_cloud: TestCloud) -> None:
    made = []
    for count in (2, 250):
        up(spec(light_cloud, count))
        light_cloud.settle()
        before = len(light_cloud.calls)
        destroy()
        made.append(Counter(call.action for call in light_cloud.calls[before:]))
    # Polling apart.
    for each in made:
        assert each.pop("DescribeInstances") <= 6
    assert made[0] == made[1]
    assert sum(made[0].values()) <= 8


# --- who may come in, and what is refused before anything is made


@pytest.mark.parametrize(("word", "cidr"), [("198.51.100.7", "198.51.100.7/32"), ("198.51.0.0/16", "198.51.0.0/16")])
def test_the_environment_names_the_caller(monkeypatch: pytest.MonkeyPatch, word: str, cidr: str) -> None:
    monkeypatch.setenv("DEC2_CALLER_CIDR", word)
    assert caller_cidr() == cidr


@pytest.mark.parametrize("word", ["<html>", "198.51.100.7/16", "2001:db8::1", "all"])
def test_a_caller_that_is_no_network_is_a_sentence(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("DEC2_CALLER_CIDR", word)
    with pytest.raises(WrongUsage, match="DEC2_CALLER_CIDR is no IPv4 network"):
        caller_cidr()


def test_what_the_address_service_says_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hotel's login page is no address."""
    monkeypatch.delenv("DEC2_CALLER_CIDR")
    answers = iter([b"203.0.113.9\n", b"<html><body>Welcome!</body></html>"])

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(next(answers))

        def log_message(self, *words: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(caller, "CALLER_SERVICE", f"http://127.0.0.1:{server.server_port}")
        try:
            assert caller_cidr() == "203.0.113.9/32"
            with pytest.raises(ProviderError, match="gave no IPv4 address"):
                caller_cidr()
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(ProviderError, match="cannot be found"):
        caller_cidr()


def test_a_password_does_not_get_into_user_data(light_cloud: TestCloud) -> None:
    with pytest.raises(WrongUsage, match="--index-url holds a password"):
        up(spec(light_cloud, 2, index_url="https://me:secret@index.example/simple"))
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_a_subnet_is_used_and_checked_first(light_cloud: TestCloud) -> None:
    client = light_cloud.client("ec2")
    subnet = client.describe_subnets()["Subnets"][0]["SubnetId"]
    report = up(spec(light_cloud, 2, subnet=subnet))
    launches = [call.parameters for call in light_cloud.calls if call.action == "RunInstances"]
    assert [each["SubnetId"] for each in launches] == [subnet, subnet]
    assert len(report.inventory.nodes) == 2
    destroy()
    with pytest.raises(ProviderError, match="there is no such subnet"):
        up(spec(light_cloud, 2, subnet="subnet-00000000000000000"))
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_two_at_once_make_one_cluster(light_cloud: TestCloud) -> None:
    """The group's name is the lock, the first host key counts for both, and the client tokens are the same."""
    options = [sys.executable, "-m", "tests.dec2.paper", *up_options(light_cloud)]
    racing = [subprocess.Popen(options, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for each in racing:
        _, complaint = each.communicate(timeout=60)
        assert each.returncode == 0, complaint
    assert len([node for node in PaperNodes().observe("c").nodes if node.alive]) == 3
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_what_nodes_have_for_life_is_held_against_the_next_up(light_cloud: TestCloud) -> None:
    """On any machine: it stands in the tags."""
    up(spec(light_cloud, 2, nthreads=3))
    light_cloud.settle()
    with pytest.raises(WrongUsage, match="have --nthreads 3"):
        up(spec(light_cloud, 3, nthreads=4))
    with pytest.raises(WrongUsage, match=r"have --type m5\.large"):
        up(spec(light_cloud, 3, nthreads=3, type="m5.xlarge"))
    assert len(up(spec(light_cloud, 3, nthreads=3)).inventory.nodes) == 3
