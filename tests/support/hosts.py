"""The programs that fastemit runs in, gevent and the servers: not every system has packages of them."""

from __future__ import annotations

import importlib.util

import pytest


def needs_host(package: str) -> pytest.MarkDecorator:
    """Skips a test where a package of the dependency group "hosts" is not; `make test` installs them all."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"there is no {package}: pip install --group hosts")
