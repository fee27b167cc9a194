"""The number of slots that a server reports, where it reports one: nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.servers.reply import Reply, json_by_path

__all__ = ["SLOT_ROUTES", "slots_told"]

SLOT_ROUTES = {"llamacpp": ("/props", "/slots"), "lmstudio": ("/api/v1/models",)}


def slots_told(kind: str, model: str, answers: Mapping[str, Reply]) -> tuple[int, str] | None:
    """(slots, the route and key that hold them), or None.

    answers: by path, of `SLOT_ROUTES[kind]`; some may be missing."""
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
    """(slots of the model's first loaded instance, the route and key that hold them), or None."""
    models = listing.get("models") if isinstance(listing, dict) else None
    for entry in models if isinstance(models, list) else ():
        if not isinstance(entry, dict):
            continue
        instances = [instance for instance in entry.get("loaded_instances") or () if isinstance(instance, dict)]
        if model != entry.get("key") and model not in [instance.get("id") for instance in instances]:
            continue
        for instance in instances:
            config = instance.get("config")
            slots = config.get("parallel") if isinstance(config, dict) else None
            if type(slots) is int and slots > 0:
                return slots, "/api/v1/models config.parallel"
    return None
