"""Folders that are made once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moto_fixtures import host, image, wheelhouse
from moto_fixtures.cache import made_once

MAKER = """
import os, sys
from pathlib import Path
from moto_fixtures.cache import made_once

def make(folder):
    (folder / "half").write_text("half")
    print("making", flush=True)
    sys.stdin.readline()
    (folder / "whole").write_text(sys.argv[2])

made_once(Path(sys.argv[1]), make)
print("done", flush=True)
"""


def start_maker(place: Path, word: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(place), word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_it_is_made_once(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    made: list[Path] = []
    for _ in range(2):
        assert made_once(place, made.append) == place
    assert len(made) == 1


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        made_once(tmp_path / "place", fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_a_killed_maker_leaves_nothing_that_counts(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with start_maker(place, "first") as killed:
        assert line(killed) == "making"
        os.kill(killed.pid, signal.SIGKILL)
    assert not place.exists()
    made_once(place, lambda folder: None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lock", "place"]


def test_two_makers_make_one_folder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with start_maker(place, "first") as first:
        assert line(first) == "making"
        with start_maker(place, "second") as second:
            let_go(first)
            assert line(first) == "done"
            assert line(second) == "done"
    assert (place / "whole").read_text() == "first"


def test_the_recipe_names_the_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEC2_TESTCLOUD_CACHE", str(tmp_path))
    before = image.recipe_hash()
    assert image.built() is None
    (tmp_path / "images" / before / "root").mkdir(parents=True)
    assert image.built() == tmp_path / "images" / before / "root"
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "jq"))
    assert image.recipe_hash() != before
    assert image.built() is None


def test_a_wheelhouse_is_found_again_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEC2_TESTCLOUD_CACHE", str(tmp_path))
    place = wheelhouse.path_of(["b", "a"])
    place.mkdir(parents=True)
    assert wheelhouse.wheelhouse(["a", "b"]) == place
    assert wheelhouse.path_of(["a"]) != place


def test_the_host_says_what_it_lacks_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lacking = host.missing()
    assert lacking is not None
    assert "root" in lacking
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    lacking = host.missing()
    assert lacking is not None
    assert "systemd-nspawn" in lacking
    assert "systemd-container" in lacking
