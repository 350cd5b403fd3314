"""How an option of a cluster is declared: once, as a field of `ClusterSpec`; everything else is derived from it.

From a declaration come the option of the commands, the environment variable, the key of `dec2.yaml`, the check of its
value, whether a node has it for life, and its paragraph in the annotated example.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dec2.errors import WrongUsage

_DECLARED = "option"
_UNITS = ("_s", "_gb")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "yes or no", "str": "a text"}
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a cluster.

    Attributes
    ----------
    field
        The attribute of `ClusterSpec`, with its unit at the end.
    kind
        `int`, `float`, `str` or `bool`.
    help
        What it is, in a sentence.
    section
        Its heading in the annotated example.
    choices, lowest, highest
        What it may be.
    example
        What the annotated example shows if there is no default.
    lasting
        The providers whose nodes have it for life: another value needs another node.
    path
        It names a file or a folder; in a configuration file, seen from that file's folder.
    says
        Returns what is wrong with a value, or None.
    """

    field: str
    kind: str
    default: Any
    help: str
    section: str
    choices: tuple[str, ...] = ()
    lowest: float | None = None
    highest: float | None = None
    example: str = ""
    lasting: tuple[str, ...] = ()
    path: bool = False
    says: Callable[[str], str | None] | None = None

    @property
    def key(self) -> str:
        """Its key in `dec2.yaml`."""
        bare = next((self.field.removesuffix(unit) for unit in _UNITS if self.field.endswith(unit)), self.field)
        return bare.replace("_", "-")

    @property
    def unit(self) -> str:
        """`s`, `GB` or nothing."""
        if self.field.endswith("_gb"):
            return "GB"
        return "s" if self.field.endswith("_s") else ""

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"DEC2_{self.key.replace('-', '_').upper()}"

    def read(self, raw: Any) -> Any:
        """Return the value that a text, or a scalar of YAML, stands for.

        Raises
        ------
        ValueError
            It is none; the text says why, as the end of a sentence that begins with the name.
        """
        value = self._typed(raw)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Accept a value of the right type.

        Raises
        ------
        ValueError
            As `read`.
        """
        if value is None:
            return
        if self.choices and value not in self.choices:
            near = nearest(str(value), self.choices)
            raise ValueError(f"cannot be {value!r}; choose one of {', '.join(self.choices)}{near}")
        if self.kind in ("int", "float") and not self._fits(value):
            raise ValueError(f"is {self._range()}, not {value:g}")
        problem = self.says(value) if self.says is not None else None
        if problem is not None:
            raise ValueError(f"cannot be {value!r}: {problem}")

    def _fits(self, value: float) -> bool:
        return (self.lowest is None or value >= self.lowest) and (self.highest is None or value <= self.highest)

    def _range(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.highest is None:
            return f"{self.lowest:g}{unit} or more"
        return f"from {self.lowest:g} to {self.highest:g}{unit}"

    def _typed(self, raw: Any) -> Any:
        if raw is None:
            if self.default is None:
                return None
            raise ValueError("has no value; give one, or leave it out")
        if isinstance(raw, (dict, list)):
            raise ValueError(f"is {_KINDS[self.kind]}, not a {'mapping' if isinstance(raw, dict) else 'list'}")
        if self.kind == "str":
            return raw if isinstance(raw, str) else self._shown(raw)
        if self.kind == "bool":
            word = str(raw).lower()
            if word not in _WORDS:
                raise ValueError(f"is yes or no, not {raw!r}")
            return _WORDS[word]
        text = str(raw).strip()
        try:
            if isinstance(raw, bool):
                raise ValueError
            return self._number(text)
        except ValueError:
            kind = "a time such as 90, 90s, 10m or 1h30m" if self.unit == "s" else _KINDS[self.kind]
            raise ValueError(f"is {kind}, not {raw!r}") from None

    def _number(self, text: str) -> int | float:
        if self.kind == "int":
            return int(text)
        found = _DURATION.fullmatch(text)
        if self.unit == "s" and text and found:
            hours, minutes, seconds = (float(part or 0) for part in found.groups())
            return 3600 * hours + 60 * minutes + seconds
        return float(text)

    @staticmethod
    def _shown(raw: object) -> str:
        # YAML reads `memory-limit: 0` as a number, and a text was meant.
        return str(raw).lower() if isinstance(raw, bool) else str(raw)

    def shown(self, value: Any) -> str:
        """Return a value as people write it."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:g}" if isinstance(value, float) else str(value)


def declared(
    default: Any,
    help: str,
    section: str,
    *,
    choices: tuple[str, ...] = (),
    lowest: float | None = None,
    highest: float | None = None,
    example: str = "",
    lasting: tuple[str, ...] = (),
    path: bool = False,
    says: Callable[[str], str | None] | None = None,
) -> Any:
    """Declare an option as a field of a dataclass; see `Option`."""
    about = {name: value for name, value in locals().items() if name != "default"}
    return dataclasses.field(default=default, metadata={_DECLARED: about})


def options_of(owner: type) -> tuple[Option, ...]:
    """Return the options that a dataclass declares, in their order."""
    return tuple(
        Option(each.name, str(each.type).partition(" ")[0], each.default, **each.metadata[_DECLARED])
        for each in dataclasses.fields(owner)
        if _DECLARED in each.metadata
    )


def checked(options: Iterable[Option], owner: object) -> None:
    """Check every option of an object.

    Raises
    ------
    WrongUsage
        The first one that cannot be, by the name that it has on the command line.
    """
    for option in options:
        try:
            option.check(getattr(owner, option.field))
        except ValueError as error:
            raise WrongUsage(f"{option.flag} {error}") from None


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean X?`, or nothing if no known word is like it; a common `prefix` does not count."""
    bare = [each.removeprefix(prefix) for each in known]
    found = difflib.get_close_matches(word.removeprefix(prefix), bare, 1, 0.6)
    return f"; did you mean {prefix}{found[0]}?" if found else ""


# --- the annotated example


def example(options: Iterable[Option]) -> str:
    """Return `dec2.yaml` with every option: its default, or a comment that shows one that could be given."""
    lines = [
        "# Every option of a cluster, with its default. Copy what you change to ./dec2.yaml, or to dec2/dec2.yaml in",
        "# your configuration folder. What counts, from the weakest to the strongest: this file, DEC2_* environment",
        "# variables, a profile, options on the command line. `dec2 config` shows each value, and where it came from.",
    ]
    section = ""
    for option in options:
        if option.section != section:
            section = option.section
            lines += ["", f"# --- {section}"]
        lines += ["", *_comment(option), _line(option)]
    lines += [
        *("", "# --- profiles: sets of the same keys under a name, for --profile NAME or DEC2_PROFILE", ""),
        *("# profile: big", "# profiles:", "#   big:", "#     count: 16", "#     type: m7i.4xlarge"),
    ]
    return "\n".join(lines) + "\n"


def _comment(option: Option) -> list[str]:
    notes = []
    if option.choices:
        notes.append(f"One of {', '.join(option.choices)}.")
    if option.lowest is not None:
        span = option._range()
        notes.append(f"{span[0].upper()}{span[1:]}.")
    elif option.unit:
        notes.append(f"In {option.unit}.")
    if option.lasting:
        notes.append("A node has it for life.")
    words = f"{option.help} {' '.join(notes)} ({option.variable}, {option.flag})".split()
    lines, line = [], "#"
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _line(option: Option) -> str:
    if option.default is None:
        return f"# {option.key}: {option.example}"
    return f"{option.key}: {option.shown(option.default)}"
