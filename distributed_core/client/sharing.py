"""What clients share by name: datasets, metadata, events."""

from __future__ import annotations

import builtins
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from distributed_core import messages
from distributed_core.client.coordination import dump_kept, open_kept
from distributed_core.client.plugging import PluginCalls
from distributed_core.errors import UsageError
from distributed_core.plugins import FORWARDED_LOGS, ForwardLogging
from distributed_core.protocol import payload as payloads

NO_DEFAULT: Any = object()


class SharingCalls(PluginCalls):
    """What a client shares with others by name."""

    # --- datasets ---------------------------------------------------------------------------------

    def publish_dataset(self, *args: Any, name: str | None = None, override: bool = False, **kwargs: Any) -> Any:
        """Let others get a value by its name: futures in any nesting, collections of dask, anything that can be sent.

        What it holds stays on the cluster until it is unpublished, also when this client has left.

        Parameters
        ----------
        args
            One value, with `name`.
        override
            Replace what has that name.
        kwargs
            Values by name.

        Raises
        ------
        UsageError
            A dataset of that name exists, or a value has no name.
        """
        self._check_open()
        if args and (name is None or len(args) > 1):
            raise UsageError("publish_dataset takes one value with name=, or values by keyword")
        found = {**({name: args[0]} if args and name is not None else {}), **kwargs}
        if not found:
            raise UsageError("publish_dataset needs a value to publish")
        dumped = {each: dump_kept(value) for each, value in found.items()}
        return self._answer(self._publish(dumped, override))

    async def _publish(self, dumped: dict[str, list[Any]], override: bool) -> None:
        for name, value in dumped.items():
            await self._ask("dataset_publish", name=name, value=value, override=override)

    def get_dataset(self, name: str, default: Any = NO_DEFAULT) -> Any:
        """Return a published value; its futures are this client's.

        Raises
        ------
        KeyError
            There is none of that name, and no `default`.
        """
        self._check_open()
        return self._answer(self._get_dataset(name, default))

    async def _get_dataset(self, name: str, default: Any) -> Any:
        handed = await self._ask("dataset_get", name=name)
        if handed is not None:
            return await open_kept(self, handed)  # type: ignore[arg-type]
        if default is NO_DEFAULT:
            raise KeyError(f"no dataset {name!r} is published")
        return default

    def list_datasets(self) -> Any:
        """Return the names of what is published."""
        self._check_open()
        return self._answer(self._list_datasets())

    async def _list_datasets(self) -> tuple[str, ...]:
        return tuple(await self._ask("dataset_list"))

    def unpublish_dataset(self, name: str) -> Any:
        """Take a published value away; what nobody else holds is released.

        Raises
        ------
        KeyError
            There is none of that name.
        """
        self._check_open()
        return self._answer(self._unpublish(name))

    async def _unpublish(self, name: str) -> None:
        if not await self._ask("dataset_unpublish", name=name):
            raise KeyError(f"no dataset {name!r} is published")

    @property
    def datasets(self) -> Datasets:
        """What is published, as a mapping; of a blocking client."""
        return Datasets(self)

    # --- metadata ---------------------------------------------------------------------------------

    def set_metadata(self, key: str | list[str], value: Any) -> Any:
        """Keep plain data (numbers, text, lists, dicts) at the scheduler, under a key or a path of keys."""
        self._check_open()
        keys = [key] if isinstance(key, str) else list(key)
        return self._answer(self._ask("metadata_set", keys=keys, value=value))

    def get_metadata(self, keys: str | list[str], default: Any = NO_DEFAULT) -> Any:
        """Return what is kept under a key or a path of keys.

        Raises
        ------
        KeyError
            There is nothing, and no `default`.
        """
        self._check_open()
        path = [keys] if isinstance(keys, str) else list(keys)
        return self._answer(self._get_metadata(path, default))

    async def _get_metadata(self, keys: list[str], default: Any) -> Any:
        found = await self._ask("metadata_get", keys=keys)
        if found:
            return found[0]
        if default is NO_DEFAULT:
            raise KeyError(keys)
        return default

    # --- events -----------------------------------------------------------------------------------

    def log_event(self, topic: str | list[str], msg: Any) -> Any:
        """Log something under a topic, or several.

        Parameters
        ----------
        msg
            Anything that can be sent.
        """
        self._check_open()
        topics = [topic] if isinstance(topic, str) else list(topic)
        payload = payloads.dumps(msg)
        return self._answer(self._ask("log_event", topics=topics, payload=payload, nbytes=payloads.sizeof(msg)))

    def get_events(self, topic: str | None = None) -> Any:
        """Return what was logged under a topic, as (seconds since 1970, what) each, oldest first; or all by topic."""
        self._check_open()
        return self._answer(self._get_events(topic))

    async def _get_events(self, topic: str | None) -> Any:
        found = await self._ask("get_events", topic=topic)
        opened = {name: tuple((at, payloads.loads(each)) for at, each in events) for name, events in found.items()}
        return opened if topic is None else opened[topic]

    def subscribe_topic(self, topic: str, handler: Callable[[tuple[float, Any]], Any]) -> Any:
        """Call `handler` with (seconds since 1970, what) for each event of a topic from now on.

        It is called in the thread for callbacks. A topic has one handler; another one replaces it.
        """
        self._check_open()
        if not callable(handler):
            raise UsageError(f"the handler of a topic is something to call, not {type(handler).__name__}")
        session = self._session

        def hear(notice: messages.Notice) -> None:
            session.call_back(handler, (float(notice.text), payloads.loads(notice.payload or [])))

        session.listeners[topic] = [hear]
        self._session.topics[topic] = None
        return self._answer(self._ask("subscribe", topic=topic))

    def unsubscribe_topic(self, topic: str) -> Any:
        """Hear of a topic no more.

        Raises
        ------
        UsageError
            It was not subscribed to.
        """
        self._check_open()
        if self._session.listeners.pop(topic, None) is None:
            raise UsageError(f"this client did not subscribe to {topic!r}")
        self._session.topics.pop(topic, None)
        return self._answer(self._ask("unsubscribe", topic=topic))

    def forward_logging(self, logger_name: str | None = None, level: int = logging.NOTSET) -> Any:
        """Let what is logged on the workers be logged here too, also on workers that come later.

        Parameters
        ----------
        logger_name
            The logger there and here; by default the root.
        level
            Forward what is at least as severe.
        """
        self.subscribe_topic(FORWARDED_LOGS, _log_here)
        return self.register_plugin(ForwardLogging(logger_name, level))

    def unforward_logging(self, logger_name: str | None = None) -> Any:
        """End `forward_logging`."""
        return self.unregister_worker_plugin(ForwardLogging(logger_name, 0).name)


class Datasets(MutableMapping[str, Any]):
    """The published values of a cluster."""

    def __init__(self, client: SharingCalls) -> None:
        self._client = client

    def __getitem__(self, name: str) -> Any:
        return self._client.get_dataset(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._client.publish_dataset(value, name=name)

    def __delitem__(self, name: str) -> None:
        self._client.unpublish_dataset(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._client.list_datasets())

    def __len__(self) -> int:
        return len(self._client.list_datasets())


def _log_here(event: tuple[float, Any]) -> None:
    record = logging.makeLogRecord(event[1])
    logging.getLogger(record.name).handle(record)


def print_here(notice: messages.Notice) -> None:
    """Print what a task printed with `distributed_core.print`."""
    said = payloads.loads(notice.payload or [])
    file = sys.stderr if said["file"] == "stderr" else sys.stdout
    builtins.print(*said["args"], sep=said["sep"], end=said["end"], file=file, flush=said["flush"])


def warn_here(notice: messages.Notice) -> None:
    """Warn of what a task warned of with `distributed_core.warn`."""
    said = payloads.loads(notice.payload or [])
    warnings.warn(said["message"], category=said["category"], stacklevel=2)
