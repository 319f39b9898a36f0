"""A configuration of stopes' mining, composed as Hydra and OmegaConf would as far as the file and its folder allow.

Understood are a file with everything in it (the `global_mining.yaml` that a run leaves), a preset, and a file with a
defaults list whose groups lie in the `conf` folder around it; overrides as on its command line; `${key}`, `${.sibling}`
and `${oc.env:NAME}`. What cannot be resolved is listed and never guessed. Nothing of stopes is imported or run.

What belongs here is reading. What its keys mean for us is in `counterparts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from speech_mining.errors import SettingsError

Tree: TypeAlias = dict[str, Any]
MISSING = "???"
SELF = "_self_"
DEEPEST = 32
"""Interpolations within interpolations; more is a circle."""
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")


class _UnresolvedError(Exception):
    """An interpolation that this file does not resolve."""


@dataclass(frozen=True)
class StopesConfig:
    """A composed configuration; interpolations are resolved when a value is asked for."""

    tree: Tree
    absent: tuple[tuple[str, str], ...] = ()
    """Defaults that were not found: (group: option, where they were looked for)."""

    def value(self, key: str) -> Any:
        """What stands at `a.b.c`, resolved; None where nothing does, or it is `???`, or cannot be resolved."""
        try:
            return _resolved(self.tree, key.split("."), _at(self.tree, key.split(".")), 0)
        except _UnresolvedError:
            return None

    def leaves(self) -> list[tuple[str, Any]]:
        """Every key and its value as written."""
        return list(_leaves(self.tree, ()))

    def unresolved(self) -> list[tuple[str, str]]:
        """Keys whose value needs what the file does not hold, with the reason."""
        found = []
        for key, written in self.leaves():
            if written == MISSING:
                found.append((key, "left open (???)"))
                continue
            try:
                _resolved(self.tree, key.split("."), written, 0)
            except _UnresolvedError as error:
                found.append((key, str(error)))
        return found

    def of_language(self, name: str) -> StopesConfig:
        """The configuration that holds for a language: its own entry over the general one."""
        own = (self.tree.get("lang_configs") or {}).get(name) or {}
        return StopesConfig(_merged(self.tree, own), self.absent)


def read_config(path: Path, overrides: Sequence[str] = ()) -> StopesConfig:
    """Read and compose a configuration.

    Args:
        path: the YAML file.
        overrides: as stopes takes them: `a.b=value`, `+a.b=value`, `~a.b`, and `group=option` for its groups.

    Raises:
        SettingsError: no such file, not YAML of keys and values, or an override that is none.
    """
    own = [_override(word) for word in overrides]
    composition = _Composition(_conf_folder(path), {key: value for key, value in own if isinstance(value, str)})
    tree = composition.compose(path, "")
    for key, value in own:
        if key not in composition.chosen:
            tree = _without(tree, key) if value is _REMOVED else _merged(tree, _nested(key, value))
    return StopesConfig(tree, tuple(composition.absent))


# --- composition ------------------------------------------------------------------------------------------------------


@dataclass
class _Composition:
    """What a defaults list brings together."""

    conf: Path
    wanted: Mapping[str, str]
    """Group → option, of the overrides."""
    chosen: set[str] = field(default_factory=set)
    """Groups whose option an override chose."""
    absent: list[tuple[str, str]] = field(default_factory=list)

    def compose(self, path: Path, package: str, depth: int = 0) -> Tree:
        """A file with its defaults, at `package`."""
        tree = _read(path)
        defaults = tree.pop("defaults", None) or []
        package = _header_package(path, package)
        if not isinstance(defaults, list) or depth > DEEPEST:
            raise SettingsError(f"{path} has defaults that are no list, or that lead in a circle.", expected="a list")
        entries = defaults if SELF in defaults else [*defaults, SELF]
        found: Tree = {}
        for entry in entries:
            part = _nested(package, tree) if entry == SELF else self._default(entry, path, package, depth)
            found = _merged(found, part)
        return found

    def _default(self, entry: Any, path: Path, package: str, depth: int) -> Tree:
        group, option, target = self._told(entry, package)
        if option is None or group.startswith("hydra/"):
            return {}
        own = path.parent if not group.startswith("/") else self.conf
        relative = Path(group.lstrip("/")) / option if group.strip("/") else Path(option)
        for folder in (own, self.conf):
            file = folder / f"{relative}.yaml"
            if file.is_file():
                return self.compose(file, target, depth + 1)
        self.absent.append((f"{group}: {option}" if group else option, str(own / f"{relative}.yaml")))
        return {}

    def _told(self, entry: Any, package: str) -> tuple[str, str | None, str]:
        """Group, option and package of an entry: `option`, `group: option`, `/group@package: option`."""
        if isinstance(entry, str):
            name, _, at = entry.partition("@")
            folder, _, named = name.rpartition("/")
            group: str = f"/{folder.strip('/')}" if name.startswith("/") else folder
            return group, named, _package(at, package, "")
        (name, option), *_ = entry.items() if isinstance(entry, Mapping) and entry else [("", None)]
        name = str(name).removeprefix("override ").removeprefix("optional ").strip()
        group, _, at = name.partition("@")
        inside = _package(at, package, group.strip("/").replace("/", "."))
        if inside in self.wanted:
            self.chosen.add(inside)
            option = self.wanted[inside]
        return group, None if option is None or option == MISSING else str(option), inside


def _package(at: str, package: str, group: str) -> str:
    if at == "_global_":
        return ""
    if at == "_here_":
        return package
    return ".".join(part for part in (package, at or group) if part)


def _header_package(path: Path, package: str) -> str:
    """`# @package _global_` at the head of a file puts it at the root."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().split()
    return first[2].replace("_global_", "") if first[:2] == ["#", "@package"] and len(first) > 2 else package


def _conf_folder(path: Path) -> Path:
    """The folder that groups lie in: the nearest one named `conf` above the file, or the file's own."""
    return next((folder for folder in path.absolute().parents if folder.name == "conf"), path.absolute().parent)


def _read(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}).", expected="a configuration of stopes' mining, in YAML"
        ) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} holds no keys but {type(tree).__name__}.", expected="keys and values, in YAML")
    return _with_names(tree)


def _with_names(tree: Mapping[Any, Any]) -> Tree:
    """Keys as text: `no` and `on` are languages too, and YAML takes them for true and false."""
    names = {True: "on", False: "no"}
    return {
        names.get(key, str(key)) if isinstance(key, bool) else str(key): _with_names(value)
        if isinstance(value, Mapping)
        else value
        for key, value in tree.items()
    }


# --- overrides --------------------------------------------------------------------------------------------------------

_REMOVED = object()


def _override(word: str) -> tuple[str, Any]:
    if word.startswith("~"):
        return word[1:].partition("=")[0], _REMOVED
    key, sign, written = word.lstrip("+").partition("=")
    if not sign or not re.fullmatch(r"[\w./@-]+", key):
        raise SettingsError(f"{word!r} is no override.", expected="KEY=VALUE as stopes takes it, such as src_lang=deu")
    try:
        return key.replace("/", "."), yaml.safe_load(written) if written else None
    except yaml.YAMLError:
        return key, written


def _without(tree: Tree, key: str) -> Tree:
    first, _, rest = key.partition(".")
    if rest and isinstance(tree.get(first), dict):
        return {**tree, first: _without(tree[first], rest)}
    return {name: value for name, value in tree.items() if name != first or rest}


def _nested(key: str, value: Any) -> Tree:
    for part in reversed([part for part in key.split(".") if part]):
        value = {part: value}
    return dict(value)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    tree = dict(under)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(tree.get(name), Mapping)
        tree[name] = _merged(tree[name], value) if both else value
    return tree


# --- interpolation ----------------------------------------------------------------------------------------------------


def _leaves(tree: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, (*place, name))
    else:
        yield ".".join(place), tree


def _at(tree: Any, place: Sequence[str]) -> Any:
    for name in place:
        if not isinstance(tree, Mapping) or name not in tree:
            raise _UnresolvedError(f"no {'.'.join(place)} in the file")
        tree = tree[name]
    return tree


def _resolved(tree: Tree, place: list[str], written: Any, depth: int) -> Any:
    if isinstance(written, Mapping):
        return {name: _resolved(tree, [*place, name], value, depth + 1) for name, value in written.items()}
    if isinstance(written, list):
        return [_resolved(tree, place, value, depth + 1) for value in written]
    if written == MISSING:
        raise _UnresolvedError(f"{'.'.join(place)} is left open (???)")
    if not isinstance(written, str):
        return written
    if depth > DEEPEST:
        raise _UnresolvedError(f"{written} leads in a circle")
    whole = _INNERMOST.fullmatch(written)
    if whole:
        return _referred(tree, place, whole[1], depth)
    found = _INNERMOST.search(written)
    if not found:
        return written
    inner = _referred(tree, place, found[1], depth)
    return _resolved(tree, place, f"{written[: found.start()]}{inner}{written[found.end() :]}", depth + 1)


def _referred(tree: Tree, place: list[str], reference: str, depth: int) -> Any:
    name, colon, arguments = reference.strip().partition(":")
    if colon:
        return _environment(name, arguments)
    ups = len(name) - len(name.lstrip("."))
    rest = [part for part in name.lstrip(".").split(".") if part]
    target = [*(place[: len(place) - ups] if ups else []), *rest]
    return _resolved(tree, target, _at(tree, target), depth + 1)


def _environment(resolver: str, arguments: str) -> str:
    name, comma, default = arguments.partition(",")
    if resolver == "oc.env" and name.strip() in os.environ:
        return os.environ[name.strip()]
    if resolver == "oc.env" and comma:
        return default.strip()
    raise _UnresolvedError(f"${{{resolver}:{arguments}}} is known to the run only")
