"""Reading a profile: YAML, the shipped profiles, and the overrides of the command line laid over them.

Reading the named file and listing the shipped ones is all that this module does outside itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue, ValidationError

from loadgen.errors import UsageError
from loadgen.profile.base import brief, did_you_mean
from loadgen.profile.faults import COMMAND_LINE, one_line
from loadgen.profile.profile import Profile

__all__ = ["load", "shipped"]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key given twice is an error and 1e3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value} is given twice, keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(source: str | Path | None, overrides: Mapping[str, JsonValue] | None = None) -> Profile:
    """Read a profile, lay `overrides` over it and validate the sum.

    source: a path, the name of a shipped profile such as `quickstart`, or None for overrides alone.
    overrides: nested like the file; None means "not given". What an override makes meaningless is dropped from
    the file's side: a concurrency replaces the file's rate and stages, a number of requests its duration, and so on.
    File names inside a profile are relative to the profile; those in overrides are left as they are.
    Raises UsageError.
    """
    given = _without_nones(overrides or {})
    if source is None:
        return _validated(given, COMMAND_LINE, {})
    path = _find(source)
    data = _read(path)
    _anchor(data, path.parent)
    return _validated(_merged(data, given), str(source) if Path(source) == path else path.name, given)


def shipped() -> dict[str, Path]:
    """The profiles that come with loadgen: name -> path."""
    package = Path(__file__).resolve().parents[1]
    folder = next((f for f in (package / "profiles", package.parent / "profiles") if f.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def _find(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    ours = shipped()
    name = str(source).removesuffix(".yaml")
    if name in ours:
        return ours[name]
    hint = did_you_mean(name, ours) or f"; shipped profiles: {', '.join(ours)}"
    what = "is a folder, name a file in it" if path.is_dir() else f"no such file or shipped profile{hint}"
    raise UsageError(f"{source}: {what}")


def _read(path: Path) -> dict[str, JsonValue]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text at byte {error.start}, save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a mapping with load and work at its top, got {brief(data)}")
    return data


def _anchor(data: dict[str, JsonValue], folder: Path) -> None:
    """Make the file names inside `data` relative to `folder`, in place."""
    target = data.get("target")
    holders = [(t, key) for t in (target if isinstance(target, list) else [target]) for key in ("tokenizer", "ca_file")]
    for holder, key in [*holders, (data.get("work"), "dataset"), (data.get("agents"), "data")]:
        name = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(name, str):
            holder[key] = str(folder / Path(name).expanduser())


# An override of the key on the left makes the file's keys on the right meaningless.
_REPLACES = {
    "load": {
        "concurrency": ("rate_per_s", "arrivals", "burstiness", "mmpp", "max_in_flight", "stages"),
        "rate_per_s": ("concurrency", "stages"),
        "requests": ("duration_s", "stages"),
        "duration_s": ("requests", "stages"),
        "stages": ("requests", "duration_s", "rate_per_s", "concurrency"),
        "warmup_requests": ("warmup_s",),
        "warmup_s": ("warmup_requests",),
    },
    "work": {"dataset": ("prompt_tokens",), "prompt_tokens": ("dataset", "dataset_format", "order")},
}


_AS_GIVEN = ("options", "objectives")  # their keys are the user's, and so is a null there


def _without_nones(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`given` without its Nones. A mapping that is emptied goes too, or the options would be blamed for the file."""
    pruned = {
        key: _without_nones(value) if isinstance(value, dict) and key not in _AS_GIVEN else value
        for key, value in given.items()
        if value is not None
    }
    return {key: value for key, value in pruned.items() if value != {} or given[key] == {}}


def _merged(data: dict[str, JsonValue], given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    out = dict(data)
    campaign, wanted = out.get("campaign"), given.get("campaign")
    if isinstance(wanted, dict) and wanted.get("until") is not None:
        out.pop("runs", None)
    elif given.get("runs") is not None and isinstance(campaign, dict):
        out["campaign"] = {key: value for key, value in campaign.items() if key not in ("until", "until_metric")}
    for key, value in given.items():
        old = out.get(key)
        if key in _REPLACES and isinstance(old, dict) and isinstance(value, dict):
            dropped = {name for new in value for name in _REPLACES[key].get(new, ())}
            merged = {name: item for name, item in old.items() if name not in dropped} | value
            _drop_stale_arrivals(merged, value)
            out[key] = merged
        elif key == "target" and isinstance(old, list) and isinstance(value, dict) and "url" not in value:
            out[key] = [{**item, **value} if isinstance(item, dict) else item for item in old]
        elif isinstance(old, dict) and isinstance(value, dict):
            out[key] = {**old, **value}
        else:
            out[key] = value
    return out


def _drop_stale_arrivals(merged: dict[str, JsonValue], given: dict[str, JsonValue]) -> None:
    """Let a rate given on the command line open a file's closed loop, or replace its burst."""
    if "arrivals" in given:
        for arrivals, key in (("gamma", "burstiness"), ("mmpp", "mmpp")):
            if given["arrivals"] != arrivals and key not in given:
                merged.pop(key, None)
    elif "rate_per_s" in given and merged.get("arrivals") in ("closed", "burst"):
        del merged["arrivals"]


def _validated(data: dict[str, JsonValue], place: str, given: dict[str, JsonValue]) -> Profile:
    try:
        return Profile.model_validate({"load": {}, **data})
    except ValidationError as errors:
        raise UsageError(one_line(errors.errors(include_url=False)[0], data, place, given)) from None
