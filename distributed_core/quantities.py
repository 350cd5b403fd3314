"""Text of command lines and arguments to quantities: durations, amounts of memory, resources, environments.

Each kind of text is read here and nowhere else; what cannot be read is a `UsageError` that shows how to write it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from distributed_core.errors import UsageError
from distributed_core.measuring import machine_memory_bytes

_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0}
_SECONDS |= {"m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0}
_SECONDS |= {"day": 86400.0, "w": 604800.0, "week": 604800.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
MEMORY_BYTES_MAX = 1 << 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_duration(value: str | float) -> float:
    """Return a duration in seconds: a number, or text such as `30 s`, `5m`, `1h30m`, `250ms`.

    Raises
    ------
    UsageError
        It is none, or negative.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        total, place = 0.0, 0
        while place < len(text):
            match = _PART.match(text, place)
            unit = match[2] if match is not None else ""
            seconds = _SECONDS.get(unit, _SECONDS.get(unit.removesuffix("s")) if len(unit) > 1 else None)
            if match is None or seconds is None or (unit == "" and (place or match.end() < len(text))):
                break
            total += float(match[1]) * seconds
            place = match.end()
        if text and place == len(text) and total < math.inf:
            return total
    elif type(value) in (int, float) and 0 <= value < math.inf:
        return float(value)
    raise UsageError(f"{value!r:.60} is no duration; write a number of seconds, or 30s, 5m, 1h30m, 2d")


def parse_memory(value: str | float) -> float | None:
    """Return a number of bytes, or a fraction from 0 to 1 of the memory that there is, or None for `auto`.

    Raises
    ------
    UsageError
        It is no amount of memory.
    """
    text = str(value).strip().lower()
    if text == "auto":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d+)?)\s*([kmgt]i?)?b?", text)
    if match is None:
        raise UsageError(
            f"{value!r:.60} is no amount of memory; write 4GB, 512MiB, 0.5 (of this machine), auto, or 0 (none)"
        )
    amount = float(match[1]) * _BYTES[match[2] or ""]
    if amount >= MEMORY_BYTES_MAX:
        raise UsageError(f"{value!r:.60} is more memory than there is; write 4GB, 512MiB, 0.5, auto, or 0 (none)")
    return amount


def memory_share_bytes(value: str | float | None, processes: int) -> int:
    """Return the limit in bytes of each of `processes` workers; 0 and None are none, `auto` shares what there is.

    What there is: the machine's memory, or the limit of this process's control group where that is less (a container, a
    job of Slurm). A fraction is of that too, for each process.

    Raises
    ------
    UsageError
        It is no amount of memory.
    """
    if value is None:
        return 0
    wanted = parse_memory(value)
    if wanted is not None and (wanted > 1 or wanted == 0):
        return int(wanted)
    total = machine_memory_bytes()
    return int(total / processes if wanted is None else wanted * total)


def checked_resources(given: Any) -> dict[str, float]:
    """Return the abstract resources of a worker: amounts by name.

    Raises
    ------
    UsageError
        They are no such thing.
    """
    wrong = UsageError(f"resources are names with amounts from 0 on, such as {{'GPU': 2}}, not {given!r:.80}")
    if not isinstance(given, Mapping):
        raise wrong
    for name, amount in given.items():
        if not isinstance(name, str) or not name or type(amount) not in (int, float) or not 0 <= amount < math.inf:
            raise wrong
    return {name: float(amount) for name, amount in given.items()}


def parse_resources(text: str) -> dict[str, float]:
    """Return the resources that text such as `GPU=2 MEM=100e9` names; commas may stand between them as well.

    Raises
    ------
    UsageError
        A part is not NAME=AMOUNT, or a name comes twice.
    """
    made: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        name, _, amount = part.partition("=")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not name or not 0 <= value < math.inf:
            raise UsageError(f"{part!r:.60} is no resource; write NAME=AMOUNT with an amount from 0 on, such as GPU=2")
        if name in made:
            raise UsageError(f"the resource {name} is given twice; name it once")
        made[name] = value
    if not made:
        raise UsageError("no resource is named; write NAME=AMOUNT, such as GPU=2")
    return made


def parse_environment(parts: Iterable[str]) -> dict[str, str]:
    """Return the variables that parts such as `NAME=VALUE` set.

    Raises
    ------
    UsageError
        A part is not NAME=VALUE.
    """
    made: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not _NAME.fullmatch(name) or "\0" in value:
            raise UsageError(f"{part!r:.60} sets no environment variable; write NAME=VALUE")
        made[name] = value
    return made
