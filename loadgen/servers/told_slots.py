"""How many slots a server says it has, where it says so: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.servers.reply import Reply, json_by_path

__all__ = ["SLOT_ROUTES", "slots_told"]

SLOT_ROUTES = {"llamacpp": ("/props", "/slots"), "lmstudio": ("/api/v1/models",)}


def slots_told(kind: str, model: str, answers: Mapping[str, Reply]) -> tuple[int, str] | None:
    """(slots, the place that says so), or None. answers: by path, of `SLOT_ROUTES[kind]`; some may lack."""
    json = json_by_path(answers)
    if kind == "llamacpp":
        props, slots = json.get("/props"), json.get("/slots")
        total = props.get("total_slots") if isinstance(props, dict) else None
        if type(total) is int and total > 0:
            return total, "/props total_slots"
        if isinstance(slots, list) and slots:
            return len(slots), "/slots"
    if kind == "lmstudio":
        return _lmstudio(json.get("/api/v1/models"), model)
    return None


def _lmstudio(listing: Any, model: str) -> tuple[int, str] | None:
    """The setting of the first loaded instance of the model."""
    models = listing.get("models") if isinstance(listing, dict) else None
    for entry in models if isinstance(models, list) else ():
        if not isinstance(entry, dict):
            continue
        instances = [one for one in entry.get("loaded_instances") or () if isinstance(one, dict)]
        if model != entry.get("key") and model not in [one.get("id") for one in instances]:
            continue
        for instance in instances:
            config = instance.get("config")
            told = config.get("parallel") if isinstance(config, dict) else None
            if type(told) is int and told > 0:
                return told, "/api/v1/models config.parallel"
    return None
