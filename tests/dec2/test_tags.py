"""The schema of the tags: what is written is what is read."""

from __future__ import annotations

import pytest

from dec2 import tags


@pytest.mark.parametrize("both", [True, False])
def test_what_a_node_carries_is_read_back(both: bool) -> None:
    written = tags.node_tags("c", "worker", 17, both=both)
    assert tags.read_node(written) == tags.NodeTags("c", "worker", 17, both, None)
    rotated = [*written, *tags.as_list({tags.HOST_KEY: "ssh-ed25519 AAAA"})]
    assert tags.read_node(rotated) == tags.NodeTags("c", "worker", 17, both, "ssh-ed25519 AAAA")


@pytest.mark.parametrize("missing", [tags.CLUSTER, tags.ROLE, tags.FIRST_INDEX])
def test_an_instance_of_somebody_else_is_no_node(missing: str) -> None:
    written = tags.node_tags("c", "worker", 1, both=False)
    assert tags.read_node([each for each in written if each["Key"] != missing]) is None
    assert tags.read_node(None) is None
    assert tags.read_node([{"Key": "Name", "Value": "web"}]) is None


def test_an_index_that_is_no_number_is_no_node() -> None:
    written = tags.as_dict(tags.node_tags("c", "worker", 1, both=False))
    assert tags.read_node(tags.as_list({**written, tags.FIRST_INDEX: "one"})) is None


def test_the_group_says_what_whoever_comes_later_must_know() -> None:
    found = tags.as_dict(tags.group_tags("c", "dask", "ubuntu", "mine", {"type": "m5.large"}))
    assert (found[tags.CLUSTER], found[tags.ENGINE], found[tags.USERNAME], found[tags.KEYNAME]) == (
        *("c", "dask", "ubuntu", "mine"),
    )
    assert found["Name"] == "dec2-c"
    assert tags.read_options(tags.as_list(found)) == {"type": "m5.large"}
    assert tags.read_options(None) == {}


def test_all_keys_are_ours_and_fit_what_aws_takes() -> None:
    written = [
        *tags.group_tags("c" * 40, "core", "u" * 32, "k" * 255, {"memory_limit": "auto"}),
        *tags.node_tags("c" * 40, "worker", 1, both=True),
    ]
    for each in written:
        assert each["Key"] == "Name" or each["Key"].startswith("dec2:")
        assert len(each["Key"]) <= 127
        assert len(each["Value"]) <= 255
