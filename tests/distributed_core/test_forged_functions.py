"""A function is named by a digest of its body: nobody can give another body to a name that others use."""

from __future__ import annotations

import pytest

from distributed_core import Client, LocalCluster, messages
from distributed_core.comm.address import parse_address
from distributed_core.comm.channel import Channel, open_channel
from distributed_core.errors import ConnectionLost
from distributed_core.protocol import payload as payloads
from distributed_core.protocol.functions import forged_functions, function_digest


def inc(x: int) -> int:
    return x + 1


def poison(x: int) -> int:
    return -x


BODY, POISON = payloads.dumps_function(inc), payloads.dumps_function(poison)
DIGEST = function_digest(BODY)


def test_a_forged_function_is_found_once_and_known_ones_are_not_read_again() -> None:
    good = messages.Submission([[DIGEST, "inc", BODY]], [])
    bad = messages.Submission([[DIGEST, "inc", POISON]], [])
    assert forged_functions([good, messages.Release([1])], {}) == []
    assert forged_functions([good, bad], {}) == ["inc"]
    assert forged_functions([bad], {DIGEST: None}) == []
    malformed = [[], [1], ["a", 2, None], [[], "f", b""], [b"", "f", []], 7]
    assert forged_functions([messages.Submission([each], []) for each in malformed], {}) == []


async def stranger(client: Client, address: str) -> Channel:
    """Connect as another client, and name a function that does something else as `inc` is named."""
    channel, _ = await open_channel(
        parse_address(address), client._session.credential, "client", {"id": "stranger", "weight": 1.0}
    )
    channel.send(messages.Submission([[DIGEST, "inc", POISON]], []))
    return channel


@pytest.mark.process
def test_one_client_cannot_poison_the_function_of_another() -> None:
    with LocalCluster(1, 1, processes=False) as cluster, cluster.client() as client:

        async def before() -> None:
            channel = await stranger(client, cluster.scheduler_address)
            with pytest.raises(ConnectionLost):
                while True:
                    await channel.read()

        client.sync(before())
        assert client.submit(inc, 1).result() == 2
        assert client._session.has_function(DIGEST)

        async def afterwards() -> None:
            channel = await stranger(client, cluster.scheduler_address)
            # It is no harm where the function is there; its own runs are those of the right one too.
            call = payloads.dumps_call((41,), {})[0]
            channel.send(messages.Submission([], [[1, None, DIGEST, call, [], 0, None]]))
            while True:
                for each in await channel.read():
                    if type(each) is messages.Finished:
                        assert payloads.loads(each.payload) == 42
                        await channel.close()
                        return

        client.sync(afterwards())
        assert client.submit(inc, 2).result() == 3
