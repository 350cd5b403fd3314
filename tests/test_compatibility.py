"""The page that compares us with dask.distributed says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import distributed
import pytest

import distributed_core

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| `(\w+)` \| (same|different|absent) \|(.*)\|$", re.MULTILINE)


def rows(section: str) -> dict[str, tuple[str, str]]:
    text = PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return {name: (verdict, how.strip()) for name, verdict, how in ROW.findall(text)}


@pytest.mark.parametrize("section", ["Client", "Future"])
def test_every_name_is_listed_and_there(section: str) -> None:
    theirs = getattr(distributed, section)
    ours = getattr(distributed_core, section)
    listed = rows(section)
    assert set(listed) == {name for name in dir(theirs) if not name.startswith("_")}
    for name, (verdict, how) in listed.items():
        made_at_init = name == "asynchronous"
        assert (hasattr(ours, name) or made_at_init) is (verdict != "absent"), name
        assert bool(how) is (verdict != "same"), name
