"""One declaration, and where values come from: file, environment, profile, command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dec2 import config
from dec2.cli.main import main
from dec2.config import resolved
from dec2.errors import WrongUsage
from dec2.options import example
from dec2.providers import local
from dec2.spec import OPTIONS, ClusterSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a configuration folder of the test's own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "here"


def written(text: str, path: str = "dec2.yaml") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def origin(settings: config.Settings, field: str) -> tuple[object, str]:
    return settings.by_field[field].value, settings.by_field[field].origin


# --- the declaration


def test_the_annotated_example_is_the_declaration() -> None:
    """If not: dec2 config --example > templates/dec2.yaml"""
    assert (ROOT / "templates" / "dec2.yaml").read_text() == example(OPTIONS)
    assert CliRunner().invoke(main, ["config", "--example"]).output == example(OPTIONS)


def test_the_example_says_what_is_so_anyway() -> None:
    settings = resolved({}, file=written(example(OPTIONS)), environment={})
    assert {each.option.field: each.value for each in settings.by_field.values()} == {
        option.field: option.default for option in OPTIONS
    }
    assert {each.option.field for each in settings.by_field.values() if each.given} == {
        option.field for option in OPTIONS if option.default is not None
    }


def test_what_the_example_shows_in_comments_can_be_said() -> None:
    text = re.sub(r"^# ([a-z-]+:.*|  [a-z ]+:.*)$", r"\1", example(OPTIONS), flags=re.MULTILINE)
    settings = resolved({}, file=written(text), environment={})
    assert settings.profile == "big"
    assert {each.option.field for each in settings.by_field.values() if each.given} == {each.field for each in OPTIONS}
    assert settings.spec().keyname == "mine"


def test_every_option_is_declared_once_and_found_everywhere() -> None:
    fields = set(ClusterSpec.__dataclass_fields__)
    assert {option.field for option in OPTIONS} == fields
    assert len({option.key for option in OPTIONS}) == len({option.variable for option in OPTIONS}) == len(fields)
    flags = {flag for parameter in main.commands["up"].params for flag in parameter.opts}
    for option in OPTIONS:
        assert option.flag in flags
        assert option.help.endswith(".")
        assert option.default is not None or option.example
        # Each says something by each of its ways.
        text = option.shown(option.default) if option.default is not None else option.example
        value = option.read(text)
        assert origin(resolved({}, environment={option.variable: text}), option.field) == (value, option.variable)
        assert origin(resolved({option.field: text}, environment={}), option.field) == (value, option.flag)
    sections = [option.section for option in OPTIONS]
    assert len(set(sections)) == sum(one != other for one, other in zip(sections, [None, *sections], strict=False))


def test_what_a_node_has_for_life_is_declared() -> None:
    assert set(ClusterSpec(provider="local").lasting_options()) == {"nthreads", "nprocs", "memory_limit"}
    assert set(ClusterSpec(keyname="k", ami="ami-1").lasting_options()) == {
        *("nthreads", "nprocs", "memory_limit", "type", "ami", "volume_size_gb"),
    }


# --- the order


def test_later_ones_win() -> None:
    file = written("count: 1\ntype: a\nregion: r1\nkeyname: k\nprofiles:\n  big:\n    count: 3\n    type: c\n")
    environment = {"DEC2_COUNT": "2", "DEC2_TYPE": "b", "DEC2_REGION": "r2"}
    settings = resolved({"count": "4"}, file=file, profile="big", environment=environment)
    assert origin(settings, "count") == (4, "--count")
    assert origin(settings, "type") == ("c", "profile big, dec2.yaml:8")
    assert origin(settings, "region") == ("r2", "DEC2_REGION")
    assert origin(settings, "keyname") == ("k", "dec2.yaml:4")
    assert origin(settings, "nprocs") == (1, "default")
    assert settings.spec().count == 4


def test_which_file_counts(folder: Path, tmp_path: Path) -> None:
    assert resolved({}, environment={"XDG_CONFIG_HOME": str(tmp_path / "config")}).file is None
    mine = written("count: 1\n", str(tmp_path / "config" / "dec2" / "dec2.yaml"))
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert resolved({}, environment=home).file == mine
    here = written("count: 2\n")
    assert resolved({}, environment=home).file == here
    named = written("count: 3\n", str(tmp_path / "other.yaml"))
    assert resolved({}, environment={**home, "DEC2_CONFIG": named}).by_field["count"].value == 3
    assert resolved({}, file=here, environment={**home, "DEC2_CONFIG": named}).by_field["count"].value == 2


def test_which_profile_counts() -> None:
    file = written("profile: a\nprofiles:\n  a: {count: 1}\n  b: {count: 2}\n  c: {count: 3}\n")
    assert resolved({}, file=file, environment={}).by_field["count"].value == 1
    assert resolved({}, file=file, environment={"DEC2_PROFILE": "b"}).by_field["count"].value == 2
    assert resolved({}, file=file, profile="c", environment={"DEC2_PROFILE": "b"}).by_field["count"].value == 3


def test_paths_in_a_file_are_seen_from_its_folder(tmp_path: Path) -> None:
    file = written("wheelhouse: wheels\nkeypair: /keys/mine\n", str(tmp_path / "project" / "dec2.yaml"))
    settings = resolved({}, file=file, environment={})
    assert settings.by_field["wheelhouse"].value == str(tmp_path / "project" / "wheels")
    assert settings.by_field["keypair"].value == "/keys/mine"
    assert resolved({"wheelhouse": "wheels"}, environment={}).by_field["wheelhouse"].value == "wheels"


# --- values


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5", 1.5), ("10m", 600), ("1h30m", 5400), ("1h1s", 3601)]
)
def test_times(text: str, seconds: float) -> None:
    assert resolved({}, file=written(f"timeout: {text}\n"), environment={}).by_field["timeout_s"].value == seconds


def test_a_number_may_be_a_text_and_a_text_a_number() -> None:
    settings = resolved({}, file=written("count: '3'\nmemory-limit: 0\nusername: yes\nami:\n"), environment={})
    assert [settings.by_field[name].value for name in ("count", "memory_limit", "username", "ami")] == [
        *(3, "0", "true", None),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuont: 3\n", "dec2.yaml:1: there is no option cuont; did you mean count?"),
        ("\nvolume_size: 3\n", "dec2.yaml:2: there is no option volume_size; did you mean volume-size?"),
        ("zzz: 3\n", "dec2.yaml:1: there is no option zzz; dec2 config --example lists what there is"),
        ("profils: {}\n", "dec2.yaml:1: there is no option profils; did you mean profiles?"),
        ("count: many\n", "dec2.yaml:1: count is a whole number, not 'many'"),
        ("count: true\n", "dec2.yaml:1: count is a whole number, not True"),
        ("count: 1.5\n", "dec2.yaml:1: count is a whole number, not 1.5"),
        ("count: [1]\n", "dec2.yaml:1: count is a whole number, not a list"),
        ("count:\n", "dec2.yaml:1: count has no value; give one, or leave it out"),
        ("count: 0\n", "dec2.yaml:1: count is from 1 to 5000, not 0"),
        ("volume-size: 2\n", "dec2.yaml:1: volume-size is from 8 to 65536 GB, not 2"),
        ("timeout: soon\n", "dec2.yaml:1: timeout is a time such as 90, 90s, 10m or 1h30m, not 'soon'"),
        ("timeout: 0\n", "dec2.yaml:1: timeout is 1 s or more, not 0"),
        ("engine: croe\n", "dec2.yaml:1: engine cannot be 'croe'; choose one of core, dask; did you mean core?"),
        ("name: A B\n", "dec2.yaml:1: name cannot be 'A B': it is no name for a cluster"),
        ("count: 1\ncount: 2\n", "dec2.yaml:2: count is there twice; keep one of them"),
        ("- count\n", "dec2.yaml:1: it holds keys and values, such as `count: 4`"),
        ("count: [\n", "dec2.yaml:2: this is no YAML: "),
        ("a\n", "dec2.yaml:1: it holds keys and values"),
        ("profiles: 3\n", "dec2.yaml:1: profiles holds profiles by name"),
        ("profiles:\n  big: 3\n", "dec2.yaml:2: big holds keys and values"),
        (
            "profiles:\n  big:\n    cuont: 3\n",
            "dec2.yaml:3: profile big, there is no option cuont; did you mean count?",
        ),
        ("profile: bgi\nprofiles:\n  big: {}\n", "dec2.yaml has no profile bgi; did you mean big?"),
        ("profile: x\n", "dec2.yaml has no profile x; it has none"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_its_line(text: str, said: str) -> None:
    written(text)
    done = CliRunner().invoke(main, ["config"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"dec2: {said}")
    assert done.stderr.count("\n") == 1
    # The same for whoever brings a cluster up, or looks for one.
    for command in ("up", "status", "list", "destroy"):
        assert CliRunner().invoke(main, [command]).stderr == done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DEC2_CUONT": "3"}, "the environment variable DEC2_CUONT is none of dec2's; did you mean DEC2_COUNT?"),
        ({"DEC2_XYZW": "3"}, "the environment variable DEC2_XYZW is none of dec2's; dec2 config --example lists"),
        ({"DEC2_PROFIL": "3"}, "the environment variable DEC2_PROFIL is none of dec2's; did you mean DEC2_PROFILE?"),
        ({"DEC2_COUNT": "x"}, "DEC2_COUNT is a whole number, not 'x'"),
        ({"DEC2_CONFIG": "/no/such"}, "the configuration file /no/such cannot be read: No such file or directory"),
        ({"DEC2_PROFILE": "big"}, "there is no profile big, because there is no dec2.yaml; name one with --config"),
    ],
)
def test_a_wrong_environment(environment: dict[str, str], said: str) -> None:
    done = CliRunner().invoke(main, ["config"], env=environment)
    assert (done.exit_code, done.stderr[: len(said) + 6]) == (2, f"dec2: {said}")


def test_a_wrong_option_is_the_same_sentence() -> None:
    done = CliRunner().invoke(main, ["up", "--count", "x"])
    assert (done.exit_code, done.stderr) == (2, "dec2: --count is a whole number, not 'x'\n")
    with pytest.raises(WrongUsage, match="--count is from 1 to 5000, not 0"):
        ClusterSpec(provider="local", count=0)


def test_a_file_that_is_no_text() -> None:
    Path("dec2.yaml").write_bytes(b"\xff\xfe\x00")
    assert "it is no text in UTF-8" in CliRunner().invoke(main, ["config"]).stderr


def test_other_variables_of_ours_are_no_options() -> None:
    """What the local provider marks processes with reaches a dec2 that runs inside a task."""
    marks = {value for name, value in vars(local).items() if isinstance(value, str) and value.startswith("DEC2_")}
    assert len(marks) == 6
    environment = dict.fromkeys((*marks, "DEC2_CALLER_CIDR", "DEC2_TESTCLOUD_ISOLATED"), "x")
    assert not any(each.given for each in resolved({}, environment=environment).by_field.values())


# --- dec2 config


def test_what_counts_and_where_it_came_from(folder: Path) -> None:
    written("count: 9\nprofiles:\n  small: {type: t3.micro}\n")
    done = CliRunner().invoke(main, ["config", "--profile", "small", "--nprocs", "2"], env={"DEC2_KEYNAME": "mine"})
    assert done.exit_code == 0
    lines = [line.split(maxsplit=2) for line in done.output.splitlines()]
    assert ["file:", "dec2.yaml,", "profile: small"] in lines
    assert [line[1:] for line in lines if line[0] == "type"] == [["t3.micro", "profile small, dec2.yaml:3"]]
    for row in (["count", "9", "dec2.yaml:1"], ["keyname", "mine", "DEC2_KEYNAME"], ["nprocs", "2", "--nprocs"]):
        assert row in [[*line[:2], line[-1].strip()] for line in lines]
    told = json.loads(CliRunner().invoke(main, ["config", "--json"]).output)
    assert told["options"]["count"] == {"value": 9, "origin": "dec2.yaml:1"}
    assert told["file"] == "dec2.yaml"


def test_the_configured_cluster_is_the_one_that_is_meant() -> None:
    written("name: mine\nprovider: local\n")
    assert "there is no cluster mine" in CliRunner().invoke(main, ["status"]).stderr
    assert CliRunner().invoke(main, ["destroy", "-y"]).output == "mine: nothing there\n"


def test_the_example_is_plain_yaml() -> None:
    assert set(yaml.safe_load(example(OPTIONS))) == {each.key for each in OPTIONS if each.default is not None}
