"""From a target of a profile to the facts that a run needs: which server, which dialect, which model.

Every mistake a user can make about a target is found here, before anything is measured, and reported in one line.
"""

from __future__ import annotations

import os
import ssl

from loadgen.errors import UsageError
from loadgen.manifest import TargetFacts
from loadgen.profile import TargetSpec
from loadgen.profile.secrets import without_secret_query
from loadgen.servers.access import Access
from loadgen.servers.discover import ask_server
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.identify import Identity
from loadgen.servers.urls import query_of, root_url
from loadgen.wire import Target
from loadgen.wire.dialects import DIALECTS

__all__ = ["describe_endpoint", "resolve"]

# These kinds answer to any model name, or load a model that is not listed as loaded.
TAKES_ANY_MODEL = ("llamacpp", "llamacpp-python", "transformers", "lmstudio", "openai")
KIND_OF_API = {"openai": "openai", "ollama": "ollama", "lmstudio": "lmstudio"}


async def resolve(spec: TargetSpec, proxy: str | None = None) -> Endpoint:
    """The endpoint of a target, after its server was asked for its kind and its models.

    Raises Unreachable, or UsageError for a target that answers but cannot be measured as the profile states.
    """
    _check_key(spec)
    _check_certificates(spec)
    access = Access(dict(spec.headers), spec.api_key_env, spec.verify_tls, spec.ca_file, proxy)
    identity = await ask_server(spec.url, access)
    if identity is None and spec.api == "auto":
        raise UsageError(
            f"{spec.url}: something answers, but not like a server we know; say which with --api openai|ollama|lmstudio"
        )
    api = identity.api if spec.api == "auto" and identity is not None else spec.api
    kind = identity.kind if identity is not None else KIND_OF_API[api]
    target = Target(
        api=api,
        kind=kind,
        model=_model(spec, identity),
        path=spec.path or DIALECTS[api].default_path,
        options=dict(spec.options),
        force_length=spec.force_length,
    )
    return Endpoint(
        name=spec.name,
        url=root_url(spec.url),
        target=target,
        query=query_of(spec.url),
        label=identity.label if identity is not None else f"unknown server, spoken to as {api}",
        access=access,
    )


def describe_endpoint(endpoint: Endpoint) -> TargetFacts:
    """The facts of an endpoint that the manifest keeps: no header, no key."""
    target = endpoint.target
    return TargetFacts(
        name=endpoint.name,
        url=endpoint.url,
        version=endpoint.label,
        kind=target.kind,
        api=target.api,
        path=without_secret_query(target.path),
        model=target.model,
        force_length=target.force_length,
    )


def _check_key(spec: TargetSpec) -> None:
    if not spec.api_key_env:
        return
    key = os.environ.get(spec.api_key_env, "")
    if not key:
        raise UsageError(f"{spec.name}: the environment variable {spec.api_key_env} is not set; export the key in it")
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise UsageError(
            f"{spec.name}: the environment variable {spec.api_key_env} holds blanks at its ends, a line break or "
            "characters beyond ASCII; export the bare key in it"
        )


def _check_certificates(spec: TargetSpec) -> None:
    if spec.ca_file is None:
        return
    try:
        Access(ca_file=spec.ca_file).tls()
    except ssl.SSLError:
        raise UsageError(f"{spec.ca_file}: holds no certificate; name a PEM file in ca_file") from None
    except OSError as error:
        raise UsageError(f"{spec.ca_file}: cannot be read: {error.strerror}; name a PEM file in ca_file") from None


def _model(spec: TargetSpec, identity: Identity | None) -> str:
    models = identity.models if identity is not None else []
    if spec.model == "auto":
        if not models:
            raise UsageError(f"{spec.url}: the server lists no model; load one, or name it with --model")
        return models[0]
    if identity is None or identity.kind in TAKES_ANY_MODEL or not models:
        return spec.model
    # Ollama lists "name:latest" and takes "name".
    if spec.model in models or f"{spec.model}:latest" in models:
        return spec.model
    raise UsageError(f"{spec.url}: no model {spec.model!r} there; it has {', '.join(models[:8])}")
