"""From the manifest of a campaign that did not finish to the profile it can be finished with.

A manifest holds no secrets: values of headers, options that resemble one, credentials of a proxy. Withheld values are
listed there, and must be given again. Everything that does not fit is a UsageError, one line with the cure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from pydantic import JsonValue, ValidationError

from loadgen.errors import UsageError
from loadgen.manifest import MANIFEST, Manifest
from loadgen.profile import Profile
from loadgen.profile.secrets import REDACTED, without_secret_query

__all__ = ["is_finished", "profile_of", "read_manifest", "read_suite_manifest"]

_M = TypeVar("_M")

NEEDED = ("design", "profile", "runs", "seed", "targets", "withheld", "workload")


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a campaign that can be resumed. Raises UsageError."""
    return read_suite_manifest(directory, MANIFEST, NEEDED, Manifest.from_json)


def read_suite_manifest(directory: Path, name: str, needed: Collection[str], of: Callable[[Any], _M]) -> _M:
    """The manifest called `name`, which holds every key of `needed`. of: makes it of plain JSON. Raises UsageError."""
    path = directory / name
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{directory}: no {name} in it; name a run's directory") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path}: is not JSON; start a new campaign") from None
    lacking = [key for key in needed if not isinstance(manifest, dict) or key not in manifest]
    if lacking:
        raise UsageError(f"{path}: holds no {', '.join(lacking)}; it cannot be resumed, start a new campaign")
    try:
        return of(manifest)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}; it cannot be resumed, start a new campaign") from None


def is_finished(manifest: Manifest) -> bool:
    """Whether all runs of the campaign were made and its directory was closed."""
    return manifest.finished is True and manifest.sha256 is not UNSET


def profile_of(
    resolved: str,
    withheld: Sequence[str],
    *,
    headers: Mapping[str, JsonValue],
    options: Mapping[str, JsonValue],
    urls: Sequence[str] = (),
    path: str | None = None,
    proxy: str | None = None,
) -> Profile:
    """The profile that was measured.

    resolved, withheld: as the manifest keeps them, the first as JSON text; withheld values are filled in from the
    other arguments. Raises UsageError for a value that is missing there or does not belong there.
    """
    plain = json.loads(resolved)
    whole = {"--url": urls, "--path": path, "--proxy": proxy}
    asked_for = [name for name in withheld if not _is_given(name, headers, options, whole)]
    if asked_for:
        raise UsageError(f"not kept, for it may be secret: give it again with {' '.join(asked_for)}")
    for key, given, option in (("headers", headers, "--header"), ("options", options, "--option")):
        for name, value in given.items():
            _fill([target[key] for target in plain["target"]], name, value, option)
    for url in urls:
        _fill_query(plain["target"], "url", url.rstrip("/"))
    if path is not None:
        _fill_query(plain["target"], "path", path)
    if "--proxy" in withheld:
        plain["proxy"] = proxy
    if REDACTED in json.dumps(plain):
        raise UsageError("manifest.json: its profile holds a secret that was not kept; start a new campaign")
    try:
        return Profile.model_validate(plain)
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"manifest.json: profile.{where}: {first['msg']}; start a new campaign") from None


def _is_given(
    name: str,
    headers: Mapping[str, JsonValue],
    options: Mapping[str, JsonValue],
    whole: Mapping[str, Sequence[str] | str | None],
) -> bool:
    if name.startswith("--header"):
        return name.removeprefix("--header '").partition(":")[0] in headers
    if name.startswith("--option"):
        return name.removeprefix("--option ").partition("=")[0] in options
    return bool(whole.get(name))


def _fill(settings: Sequence[dict[str, JsonValue]], name: str, value: JsonValue, option: str) -> None:
    """Put a withheld value in its place; nothing else may change, or the runs would not be of one kind."""
    holders = [setting for setting in settings if name in setting]
    withheld = [holder for holder in holders if REDACTED in json.dumps(holder[name])]
    if not withheld and not any(holder[name] == value for holder in holders):
        raise UsageError(f"{option} {name}: was not part of the campaign like that; start a new campaign")
    for holder in withheld:
        holder[name] = value


def _fill_query(targets: Sequence[dict[str, JsonValue]], key: str, given: str) -> None:
    """Put a full URL or path in the place of its redacted form."""
    holders = [target for target in targets if target[key] == without_secret_query(given)]
    if not holders:
        raise UsageError(f"--{key}: was not part of the campaign like that; start a new campaign")
    for target in holders:
        target[key] = given
