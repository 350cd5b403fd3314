"""What nodes are told at birth: rendered, read back, and held against cloud-init's own schema where it is there."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from pathlib import Path

import pytest

from dec2 import cloud_init, ssh
from dec2.engines import named
from dec2.engines.base import Capacity, Place
from dec2.errors import WrongUsage

NASTY = 'it\'s "$HOME" `id` \\ : # - {a: b} @wheel_port@ \n second line é'


def boot(**more: object) -> cloud_init.Boot:
    private, public = ssh.new_host_key()
    engine = named("core")
    place = Place(
        cloud_init.PYTHON, "0.0.0.0", 8786, cloud_init.SCHEDULER_FILE, "172.31.0.7:8786", cloud_init.CREDENTIAL
    )
    options: dict[str, object] = {
        "host_key": private,
        "host_key_public": public,
        "commands": {"dworker": engine.worker_command(place, "NAME", Capacity(2, 1, "1 GB"))},
        "wheel_source": "172.31.0.7",
        "manifest_sha256": "ab" * 32,
        "requirements": ("tornado>=6.4", "msgpack"),
        "index_url": None,
        "offline": True,
    }
    return cloud_init.Boot(**{**options, **more})  # type: ignore[arg-type]


def files(text: str) -> dict[str, str]:
    return {each["path"]: each["content"] for each in cloud_init.parse(text)["write_files"]}


def test_what_is_rendered_is_what_cloud_init_reads() -> None:
    wanted = boot()
    text = cloud_init.user_data(wanted)
    assert text.startswith("#cloud-config\n")
    data = cloud_init.parse(text)
    assert data["ssh_keys"] == {"ed25519_private": wanted.host_key, "ed25519_public": wanted.host_key_public}
    assert data["ssh_deletekeys"] is True
    assert cloud_init.host_key_in(text) == (wanted.host_key, wanted.host_key_public)
    assert len(text.encode()) < cloud_init.USER_DATA_BYTES_MAX / 2


def test_the_timers_come_first_and_survive_a_reboot() -> None:
    text = cloud_init.user_data(boot(lifetime_minutes=90, bootstrap_minutes=7))
    commands = cloud_init.parse(text)["runcmd"]
    assert commands[:2] == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "dec2-lifetime.timer", "dec2-bootstrap-deadline.timer"],
    ]
    assert ["systemctl", "enable", "dec2-bootstrap.service"] in commands
    units = files(text)
    assert "OnBootSec=90min" in units["/etc/systemd/system/dec2-lifetime.timer"]
    assert "OnBootSec=7min" in units["/etc/systemd/system/dec2-bootstrap-deadline.timer"]
    for name, unit in units.items():
        if name.endswith((".timer", "bootstrap.service")):
            assert "[Install]" in unit


@pytest.mark.parametrize("source", [None, "172.31.0.7"])
@pytest.mark.parametrize("index", [(None, True), (None, False), ("https://index.example/simple?a=b&c='d'", False)])
def test_the_scripts_are_shell(source: str | None, index: tuple[str | None, bool]) -> None:
    url, offline = index
    units = files(cloud_init.user_data(boot(wheel_source=source, index_url=url, offline=offline)))
    for path in ("/opt/dec2/bootstrap.sh", "/opt/dec2/engine.sh"):
        subprocess.run(["sh", "-n"], input=units[path], text=True, check=True)
    script = units["/opt/dec2/bootstrap.sh"]
    assert script.startswith("#!/bin/sh\n")
    # Whatever fails ends the script: what it says after it is then never said.
    assert "\nset -eu\n" in script
    assert ("--no-index --find-links" in script) is offline
    assert (url is None) or f"--index-url {shlex.quote(url)} " in script
    assert "tornado>=6.4" in script


def test_the_engine_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    command = ("printf", "%s\\0", "NAME", NASTY, "", "1 GB")
    units = files(cloud_init.user_data(boot(commands={"dworker": command, "dscheduler": ("echo", "other")})))
    for path in ("/opt/dec2/engine.commands", "/opt/dec2/engine.sh"):
        (tmp_path / Path(path).name).write_text(units[path])
    (tmp_path / "instance-id").write_text("i-0123\n")
    script = units["/opt/dec2/engine.sh"].replace("/opt/dec2", str(tmp_path))
    script = script.replace("/var/lib/cloud/data/instance-id", str(tmp_path / "instance-id"))
    done = subprocess.run(["sh", "-c", script, "sh", "dworker"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == ["i-0123", NASTY, "", "1 GB"]


def test_values_cannot_break_out_of_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "#cloud-config\nfirst: $one\nlist:\n  - path: ${two}\n    content: |\n      costs $$5\n"
    monkeypatch.setattr(cloud_init, "source", lambda name: template)
    data = cloud_init.parse(cloud_init.render("any", {"one": NASTY, "two": ["a", {"b": NASTY}]}))
    assert data == {"first": NASTY, "list": [{"path": ["a", {"b": NASTY}], "content": "costs $5\n"}]}
    with pytest.raises(KeyError, match="two"):
        cloud_init.render("any", {"one": 1})
    with pytest.raises(KeyError, match="does not use three"):
        cloud_init.render("any", {"one": 1, "two": 2, "three": 3})


def test_a_template_that_is_no_mapping_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_init, "source", lambda name: "- $one\n")
    with pytest.raises(KeyError, match="mapping"):
        cloud_init.render("any", {"one": 1})


def test_a_script_with_a_marker_too_few_or_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_init, "source", lambda name: "echo @one@ @two@\n")
    with pytest.raises(KeyError, match="two"):
        cloud_init._script("any", one="1")
    with pytest.raises(KeyError, match="three"):
        cloud_init._script("any", one="1", two="2", three="3")
    assert cloud_init._script("any", one="@two@", two="2") == "echo @two@ 2\n"


def test_too_long_is_refused() -> None:
    with pytest.raises(WrongUsage, match="16384"):
        cloud_init.user_data(boot(requirements=tuple(f"package-number-{number}" for number in range(1000))))


def test_what_is_no_user_data_of_ours_has_no_host_key() -> None:
    assert cloud_init.host_key_in("#!/bin/sh\necho hello\n") is None
    assert cloud_init.host_key_in("#cloud-config\nssh_keys: {rsa_private: x}\n") is None
    assert cloud_init.host_key_in("#cloud-config\nssh_keys: [x]\n") is None
    assert cloud_init.host_key_in("") is None
    assert cloud_init.host_key_in("#cloud-config\n: : [") is None


def test_the_templates_are_found_when_installed_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = {name: cloud_init.source(name) for name in ("node.yaml", "bootstrap.sh")}
    package = tmp_path / "site" / "dec2" / "templates"
    package.mkdir(parents=True)
    for name, text in here.items():
        (package / name).write_text(text)
    monkeypatch.setattr(cloud_init, "__file__", str(tmp_path / "site" / "dec2" / "cloud_init.py"))
    monkeypatch.setattr(cloud_init.importlib.resources, "files", lambda name: package)
    assert {name: cloud_init.source(name) for name in here} == here


def test_both_roles_say_the_same_but_for_what_differs() -> None:
    worker = boot()
    scheduler = dataclasses.replace(worker, wheel_source=None)
    assert files(cloud_init.user_data(worker)).keys() == files(cloud_init.user_data(scheduler)).keys()
    assert "172.31.0.7" not in files(cloud_init.user_data(scheduler))["/opt/dec2/bootstrap.sh"]
