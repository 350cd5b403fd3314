"""The README's blocks are run as they stand."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docs, pytest.mark.process]

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty home, and no account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture
def _port_8786() -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8786)) == 0:
            pytest.fail("another process listens on port 8786, which the README uses; end it first")


@pytest.mark.usefixtures("_port_8786")
def test_the_python_blocks_in_order(environment: dict[str, str], tmp_path: Path) -> None:
    python = blocks("python")
    assert len(python) == 5
    script = tmp_path / "readme.py"
    script.write_text("\n".join(python))
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "285",
        "{'half': 0.5, 'tasks in tasks': 10}",
        "3 [0.5]",
        "half is done",
        "6",
    ]


@pytest.mark.usefixtures("_port_8786")
def test_the_command_line_block(environment: dict[str, str]) -> None:
    (block, _) = blocks("console")
    running = []
    try:
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            process = subprocess.Popen(command.split(), env=environment, stdout=subprocess.PIPE, text=True)
            running.append(process)
            assert process.stdout is not None
            for line in output.splitlines():
                shape = re.escape(line).replace("40483", r"\d+")
                assert re.fullmatch(shape, process.stdout.readline().rstrip("\n"))
        assert len(running) == 2
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stdout is not None
            process.stdout.close()


def test_the_local_cluster_block(environment: dict[str, str]) -> None:
    (_, block) = blocks("console")
    commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            command.split(), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "nothing is left" in done.stdout
