"""Where the options of a cluster come from: `dec2.yaml`, environment, profile, command line; the last wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dec2.errors import WrongUsage
from dec2.options import Option, nearest
from dec2.spec import OPTIONS, ClusterSpec

FILE = "dec2.yaml"
FILE_VARIABLE = "DEC2_CONFIG"
PROFILE_VARIABLE = "DEC2_PROFILE"
#: Variables that begin like options and are none: who may come in, and the marks of what runs on this machine.
OTHER_VARIABLES = (
    "DEC2_CALLER_CIDR",
    *("DEC2_CLUSTER", "DEC2_ROLE", "DEC2_INDEX", "DEC2_FOLDER", "DEC2_BOTH", "DEC2_UNIT"),
)
_OTHER_PREFIXES = ("DEC2_TESTCLOUD_",)
_PREFIX = "DEC2_"
_LISTED = "; dec2 config --example lists what there is"
_BY_KEY = {option.key: option for option in OPTIONS}
_BY_VARIABLE = {option.variable: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Setting:
    """The effective value of an option, and where it came from, for people."""

    option: Option
    value: Any
    origin: str

    @property
    def given(self) -> bool:
        """Whether somebody chose it."""
        return self.origin != "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of a cluster with their origins.

    Attributes
    ----------
    file
        The configuration file that was read, if any.
    profile
        The profile that counts, if any.
    """

    by_field: Mapping[str, Setting]
    file: str | None = None
    profile: str | None = None

    def spec(self) -> ClusterSpec:
        """Return the cluster that is wanted.

        Raises
        ------
        WrongUsage
            Options do not go together.
        """
        return ClusterSpec(**{field: setting.value for field, setting in self.by_field.items()})

    def chosen(self, field: str) -> Any:
        """Return the value of an option that somebody chose, or None."""
        setting = self.by_field[field]
        return setting.value if setting.given else None


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    value: yaml.Node
    origin: str


def resolved(
    given: Mapping[str, Any],
    *,
    file: str | None = None,
    profile: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return the effective options.

    Parameters
    ----------
    given
        What the command line says, by field: a value as text, or None; or a pair of a value and the name of its option.
    file, profile
        What --config and --profile say.

    Raises
    ------
    WrongUsage
        A file, a variable or an option is wrong: one sentence that names it, its line, and the nearest known name.
    """
    found = os.environ if environment is None else environment
    settings = {option.field: Setting(option, option.default, "default") for option in OPTIONS}
    path = _file(file or found.get(FILE_VARIABLE), found)
    document = _Document(path) if path is not None else None
    if document is not None:
        settings.update(document.settings())
    settings.update(_from_environment(found))
    named = profile or found.get(PROFILE_VARIABLE) or (document.profile() if document is not None else None)
    if named is not None:
        settings.update(_profile(document, named))
    for field, raw in given.items():
        if raw is not None:
            option = settings[field].option
            raw, flag = raw if isinstance(raw, tuple) else (raw, option.flag)
            settings[field] = _setting(option, raw, flag, flag)
    return Settings(settings, None if path is None else str(path), named)


def _file(named: str | None, environment: Mapping[str, str]) -> Path | None:
    if named is not None:
        return Path(named).expanduser()
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    for candidate in (Path(FILE), Path(home).expanduser() / "dec2" / FILE):
        if candidate.is_file():
            return candidate
    return None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    settings = {}
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name in (FILE_VARIABLE, PROFILE_VARIABLE, *OTHER_VARIABLES):
            continue
        if name.startswith(_OTHER_PREFIXES):
            continue
        option = _BY_VARIABLE.get(name)
        if option is None:
            near = nearest(name, [*_BY_VARIABLE, FILE_VARIABLE, PROFILE_VARIABLE], _PREFIX)
            raise WrongUsage(f"the environment variable {name} is none of dec2's{near or _LISTED}")
        settings[option.field] = _setting(option, environment[name], name, name)
    return settings


def _profile(document: _Document | None, name: str) -> dict[str, Setting]:
    if document is None:
        raise WrongUsage(f"there is no profile {name}, because there is no {FILE}; name one with --config FILE")
    return document.profile_settings(name)


def _setting(option: Option, raw: Any, name: str, origin: str) -> Setting:
    try:
        return Setting(option, option.read(raw), origin)
    except ValueError as error:
        raise WrongUsage(f"{name} {error}") from None


class _Document:
    """A configuration file, with the line of every key.

    Raises
    ------
    WrongUsage
        It cannot be read, or is no mapping.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise WrongUsage(f"the configuration file {path} cannot be read: {problem}") from None
        self._loader = yaml.SafeLoader(text)
        try:
            root = self._loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
            raise WrongUsage(f"{path}{line}: this is no YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise WrongUsage(f"{path}: this is no YAML: {error}") from None
        keys = self._keys(root, "keys and values, such as `count: 4`") if root is not None else []
        self._profiles: _Key | None = None
        self._named: _Key | None = None
        self._options = []
        for key in keys:
            if key.name == "profiles":
                self._profiles = key
            elif key.name == "profile":
                self._named = key
            else:
                self._options.append(key)

    def settings(self) -> dict[str, Setting]:
        """Return what it says outside its profiles; what is wrong in those is found too."""
        for name, keys in self._each_profile().items():
            self._read(keys, f"profile {name}, ")
        return self._read(self._options, "", ["profile", "profiles"])

    def profile(self) -> str | None:
        """Return the profile that it asks for."""
        if self._named is None:
            return None
        value = self._value(self._named)
        return None if value is None else str(value)

    def profile_settings(self, name: str) -> dict[str, Setting]:
        """Return what a profile says."""
        profiles = self._each_profile()
        if name not in profiles:
            near = nearest(name, profiles)
            listed = f"; it has {', '.join(profiles)}" if profiles else "; it has none"
            raise WrongUsage(f"{self._path} has no profile {name}{near or listed}")
        return self._read(profiles[name], f"profile {name}, ")

    def _each_profile(self) -> dict[str, list[_Key]]:
        if self._profiles is None or self._value(self._profiles) is None:
            return {}
        each = self._keys(self._profiles.value, "profiles by name", self._profiles)
        return {key.name: self._keys(key.value, "keys and values", key) for key in each}

    def _read(self, keys: list[_Key], where: str, more: list[str] | None = None) -> dict[str, Setting]:
        settings = {}
        for key in keys:
            option = _BY_KEY.get(key.name)
            if option is None:
                near = nearest(key.name.replace("_", "-"), [*_BY_KEY, *(more or [])])
                raise WrongUsage(f"{key.origin}: {where}there is no option {key.name}{near or _LISTED}")
            value = self._value(key)
            if option.path and isinstance(value, str):
                value = str(self._path.parent / Path(value).expanduser())
            setting = _setting(option, value, f"{key.origin}: {where}{key.name}", f"{where}{key.origin}")
            settings[option.field] = setting
        return settings

    def _value(self, key: _Key) -> Any:
        return self._loader.construct_object(key.value, deep=True)

    def _keys(self, node: yaml.Node, wanted: str, owner: _Key | None = None) -> list[_Key]:
        """Return the keys of a mapping with their lines; each may be there once."""
        line = node.start_mark.line + 1
        name = f"{owner.name} holds " if owner is not None else "it holds "
        if not isinstance(node, yaml.MappingNode):
            raise WrongUsage(f"{self._path}:{line}: {name}{wanted}")
        keys: list[_Key] = []
        for key_node, value in node.value:
            origin = f"{self._path}:{key_node.start_mark.line + 1}"
            key = _Key(str(key_node.value), value, origin)
            if any(each.name == key.name for each in keys):
                raise WrongUsage(f"{origin}: {key.name} is there twice; keep one of them")
            keys.append(key)
        return keys
