"""Which collectors tasks may name, and the worker's own credentials for them.

A task names the collector for its events. Whoever can write to the broker can write such a task, so a worker may have
a list of those that are allowed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fastemit._settings import checks
from fastemit._transport import Endpoint, parse_endpoint
from fastemit.celery.worker import Destination
from fastemit.typing import Method

#: Names of settings in the configuration of the app. All of them are lists: `celery inspect conf` masks a setting with
#: PASS or SECRET in its name, but not if it is a mapping.
ALLOWED: Final = "fastemit_allowed_collectors"
PASSWORDS: Final = "fastemit_passwords"
HEADERS: Final = "fastemit_secret_headers"
#: Variables that are read if the configuration has no such setting. They hold addresses with spaces between.
ALLOWED_VARIABLE: Final = "FASTEMIT_ALLOWED_COLLECTORS"
PASSWORDS_VARIABLE: Final = "FASTEMIT_PASSWORDS"

_PORTS: Final = {"http": 80, "https": 443}
_METHODS: Final[tuple[Method, ...]] = ("post", "get")
_Key = tuple[str, str, int, str]


class NotAllowedError(Exception):
    """A task names a collector that this worker may not send to."""


@dataclass(frozen=True)
class Collectors:
    """The worker's own settings for collectors.

    Attributes:
        allowed: the collectors that tasks may send to; None for all.
        passwords: user and password for a collector, in place of the task's.
        headers: added to requests to a collector, in place of the task's headers of the same name.
    """

    allowed: frozenset[_Key] | None = None
    passwords: Mapping[_Key, tuple[str, str]] = field(default_factory=dict, repr=False)
    headers: Mapping[_Key, dict[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, configuration: Any, environment: Mapping[str, str] = os.environ) -> Collectors:
        """Read the configuration of an app, and the environment.

        Raises:
            TypeError, ValueError: naming the setting and what is allowed; a password is not shown.
        """
        allowed = configuration.get(ALLOWED)
        if allowed is not None:
            allowed_keys = _keys(ALLOWED, _listed(ALLOWED, allowed))
        elif words := environment.get(ALLOWED_VARIABLE, "").split():
            allowed_keys = _keys(ALLOWED_VARIABLE, words)
        else:
            allowed_keys = None
        passwords = configuration.get(PASSWORDS)
        if passwords is not None:
            pairs = list(_passwords_of(PASSWORDS, _listed(PASSWORDS, passwords)))
        else:
            pairs = list(_passwords_of(PASSWORDS_VARIABLE, environment.get(PASSWORDS_VARIABLE, "").split()))
        headers: dict[_Key, dict[str, str]] = {}
        for entry in _listed(HEADERS, configuration.get(HEADERS) or ()):
            if not isinstance(entry, (list, tuple)) or len(entry) != 3:
                raise TypeError(f"{HEADERS} must hold an address, a name and a value in each entry")
            address, header, value = entry
            for key in _keys(HEADERS, [address]):
                headers.setdefault(key, {}).update(checks.headers(HEADERS, {header: value}))
        return cls(allowed_keys, dict(pairs), headers)

    def complete(self, to: Destination) -> Destination:
        """Return a task's destination with the worker's own password and headers.

        Raises:
            NotAllowedError: the worker may not send there.
        """
        key = _key(to.endpoint)
        if self.allowed is not None and key not in self.allowed:
            raise NotAllowedError(f"{ALLOWED} does not name it")
        if self.allowed is not None and any(name.lower() == "host" for name in to.headers):
            # A server that serves several hosts goes by this header, not by the address.
            raise NotAllowedError("its header Host may name another collector")
        if key in self.passwords:
            username, password = self.passwords[key]
            to = replace(to, endpoint=to.endpoint.but(username=username, password=password))
        if key in self.headers:
            own = self.headers[key]
            names = {name.lower() for name in own}
            kept = {name: value for name, value in to.headers.items() if name.lower() not in names}
            to = replace(to, headers={**kept, **own})
        return to


def _key(endpoint: Endpoint) -> _Key:
    return endpoint.scheme, endpoint.host.lower(), endpoint.port or _PORTS[endpoint.scheme], endpoint.path


def _parsed(name: str, address: Any) -> list[Endpoint]:
    """A collector's address for each method."""
    try:
        return [parse_endpoint(address, method=method) for method in _METHODS]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _keys(name: str, addresses: Iterable[Any]) -> frozenset[_Key]:
    endpoints = [endpoint for address in addresses for endpoint in _parsed(name, address)]
    if any(endpoint.username is not None or endpoint.password is not None for endpoint in endpoints):
        raise ValueError(f"{name} must hold addresses without user and password, which go into {PASSWORDS}")
    return frozenset(map(_key, endpoints))


def _listed(name: str, value: Any) -> Iterable[Any]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    raise TypeError(f"{name} must be a list or None, not {type(value).__name__}")


def _passwords_of(name: str, addresses: Iterable[Any]) -> Iterable[tuple[_Key, tuple[str, str]]]:
    for address in addresses:
        for endpoint in _parsed(name, address):
            if endpoint.username is None or endpoint.password is None:
                raise ValueError(f"{name} must hold addresses such as https://user:password@collector.example.com")
            yield _key(endpoint), (endpoint.username, endpoint.password)
