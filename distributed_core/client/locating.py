"""Where the scheduler is: an address, or the file that it wrote."""

from __future__ import annotations

import json
import os
from typing import Any

from distributed_core.comm.address import Address, parse_address
from distributed_core.comm.credential import Credential, load_or_create
from distributed_core.errors import CredentialError, UsageError
from distributed_core.files import read_small
from distributed_core.settings import DEFAULT_PORT


def find_scheduler(
    address: str | None,
    scheduler_file: str | os.PathLike[str] | None,
    credential: str | os.PathLike[str] | None,
    insecure: bool,
) -> tuple[Address, Credential | None]:
    """Return where the scheduler is, and the credential that leads in (None: it runs without security).

    Raises
    ------
    UsageError, CredentialError
        Neither address nor file is given, or the file cannot be used.
    """
    if scheduler_file is not None:
        named = read_scheduler_file(scheduler_file)
        address = address or named["address"]
        credential = credential or named.get("credential")
        insecure = insecure or bool(named.get("insecure"))
    if address is None:
        raise UsageError("a Client needs the scheduler's address, or scheduler_file=")
    return parse_address(address, DEFAULT_PORT), None if insecure else load_or_create(credential)


def read_scheduler_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `dscheduler --scheduler-file` wrote.

    Raises
    ------
    CredentialError
        It is not there, or not such a file, or everybody can write to it.
    """
    try:
        text, mode = read_small(path)
        if mode & 0o002:
            # It says which credential leads in, or that none is needed: whoever writes it chooses whose code runs here.
            raise ValueError(f"everybody can write to it; run: chmod o-w {os.fspath(path)}")
        named = json.loads(text)
        parse_address(named["address"])
        if not isinstance(named, dict) or not isinstance(named.get("credential"), str | None):
            raise ValueError("its content is of the wrong type")
        return named
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        text = f"the scheduler file {os.fspath(path)} cannot be used ({error}); dscheduler --scheduler-file writes it"
        raise CredentialError(text) from None
