"""Makes a client of redis-py from an address: of one server, of a Cluster, or of the primary that Sentinels name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn
from urllib.parse import unquote, urlsplit

import redis
import redis.cluster
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastemit._interfaces import DEFAULT_TIMEOUT
from fastemit._process import sockets

#: Parts of redis-py have no types.
_lib: Final[Any] = redis
#: The forms of an address, for the text of errors.
FORMS: Final = (
    "redis://host:6379/0, unix:///path/to/socket, redis+cluster://host:6379,host:6379, or "
    "redis+sentinel://host:26379,host:26379/name-of-the-primary/0; rediss for redis is TLS; user:password@ comes "
    "before the host"
)
_SCHEME: Final = re.compile(r"(redis|rediss|unix|rediss?\+cluster|rediss?\+sentinel)://", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/,\s]+)(?::([0-9]{1,5}))?")
#: The name of the primary among Sentinels, where the address has no other.
_SERVICE: Final = "mymaster"
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379


class AddressError(ValueError):
    """An address that cannot be used. The message does not show it, because any part may belong to a password."""


def client_of(url: str = "redis://localhost:6379/0", connect_timeout: float | None = None) -> Any:
    """A client with time limits, which redis-py itself does not set. They are those of a request to a collector.

    It tries again once, without a pause. redis-py retries for seconds by default, and `RedisEmitter.input` would wait
    for that. Later attempts are the backoff's.

    Args:
        url: see `FORMS`. Behind a question mark it may have arguments of `redis.Redis`.
        connect_timeout: seconds to connect; default 10.

    Raises:
        AddressError: the address cannot be used.
        redis.RedisError: a Cluster cannot be reached. It is asked for its nodes in this call.
    """
    scheme, plain, hosts, path = _taken_apart(url)
    connect, read = DEFAULT_TIMEOUT
    options: dict[str, Any] = {
        "socket_connect_timeout": connect if connect_timeout is None else connect_timeout,
        "socket_timeout": read,
        "health_check_interval": 30,
    }
    try:
        given = _lib.connection.parse_url(plain)
    except ValueError:
        # The text of redis-py is not used: it names the argument, and that name may be a part of a password.
        _refuse("one of its arguments behind the question mark has no valid value")
    if scheme.startswith("rediss") and str(given.get("ssl_cert_reqs", "")).lower() != "none":
        # Without this, redis-py before 6 accepts a certificate of any host.
        options["ssl_check_hostname"] = True
    try:
        if scheme.endswith("cluster"):
            return _of_cluster(hosts, given, options)
        if scheme.endswith("sentinel"):
            return _of_sentinels(hosts, path, given, options)
        client = redis.Redis.from_url(plain, retry=Retry(NoBackoff(), 1), **options)
        _look_at_arguments(client)
    except (TypeError, ValueError, redis.exceptions.DataError):
        _refuse("one of its arguments behind the question mark is unknown, or has no valid value")
    # In a forked child redis-py drops its connections, which closes their numbers: these may be the child's files.
    sockets.watch(client, sockets.of_redis)
    return client


def _look_at_arguments(client: Any) -> None:
    """Raise what the first connection would raise for arguments that it does not know. Nothing is connected."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)


def _refuse(why: str) -> NoReturn:
    raise AddressError(f"the address of Redis cannot be used: {why}. It must be like {FORMS}") from None


def _taken_apart(url: str) -> tuple[str, str, list[tuple[str, int]], list[str]]:
    """Return the scheme, an address that redis-py reads in the same way, the hosts, and the parts of the path."""
    found = _SCHEME.match(url)
    if found is None:
        _refuse("its scheme is none of these")
    scheme = found[1].lower()
    try:
        parts = urlsplit("redis" + url[found.end(1) :])
    except ValueError:
        _refuse("its host cannot be read")
    if "#" in url or "@" in parts.path + parts.query:
        # The parts would be taken for others: the beginning of the password for a host.
        _refuse(
            "it has a # or @ where none can be. In a user or password, these characters have to be written so: "
            "/ is %2F, # is %23, ? is %3F, @ is %40, : is %3A, % is %25"
        )
    userinfo, at, location = parts.netloc.rpartition("@")
    query = f"?{parts.query}" if parts.query else ""
    if scheme == "unix":
        if location or not parts.path:
            _refuse("the path of a socket begins with a slash, as in unix:///path/to/socket")
        return scheme, f"unix://{userinfo}{at}{parts.path}{query}", [], []
    default = _SENTINEL_PORT if scheme.endswith("sentinel") else _PORT
    hosts = list(_hosts_of(location, default))
    path = [unquote(part) for part in parts.path.split("/") if part]
    several = scheme.endswith(("cluster", "sentinel"))
    if len(hosts) > 1 and not several:
        _refuse("it has several hosts, which only a Cluster or Sentinels have")
    database = path[1:] if scheme.endswith("sentinel") else path
    if len(database) > 1 or not all(re.fullmatch("[0-9]{1,9}", part) for part in database):
        _refuse("the number of a database is expected at the end of its path. (A slash in a password is written %2F.)")
    if scheme.endswith("cluster") and database not in ([], ["0"]):
        _refuse("a Cluster has no database but 0")
    host, port = hosts[0]
    host = f"[{host}]" if ":" in host else host
    secure = "rediss" if scheme.startswith("rediss") else "redis"
    return scheme, f"{secure}://{userinfo}{at}{host}:{port}/{''.join(database)}{query}", hosts, path


def _hosts_of(location: str, default: int) -> Iterator[tuple[str, int]]:
    for each in location.split(",") if location else ["localhost"]:
        found = _HOST.fullmatch(each)
        port = default if found is None or found[2] is None else int(found[2])
        if found is None or not 1 <= port <= 65535:
            _refuse("a host or port cannot be read. (A slash in a password is written %2F.)")
        yield found[1].strip("[]"), port


def _of_cluster(hosts: list[tuple[str, int]], given: dict[str, Any], options: dict[str, Any]) -> Any:
    for name in ("host", "port", "db"):
        given.pop(name, None)
    if given.pop("connection_class", None) is not None:
        if int(redis.__version__.partition(".")[0]) < 6 and "ssl_check_hostname" in options:
            _refuse("the package redis before version 6 accepts a certificate of any host for a node of a Cluster")
        given["ssl"] = True
    nodes = [_lib.cluster.ClusterNode(host, port) for host, port in hosts]
    return redis.RedisCluster(startup_nodes=nodes, **{**options, **given})


def _of_sentinels(hosts: list[tuple[str, int]], path: list[str], given: dict[str, Any], options: dict[str, Any]) -> Any:
    """A client of the primary. Each new connection asks the Sentinels which server that is."""
    for name in ("host", "port"):
        given.pop(name, None)
    own = {name.removeprefix("sentinel_"): given.pop(name) for name in list(given) if name.startswith("sentinel_")}
    settings = {**options, **given, "retry": Retry(NoBackoff(), 1)}
    if settings.pop("connection_class", None) is not None:
        settings["ssl"] = True
    shared = {name: value for name, value in settings.items() if name.startswith(("socket_", "ssl")) or name == "retry"}
    sentinel = _lib.sentinel.Sentinel(hosts, sentinel_kwargs={**shared, **own}, **settings)
    client = sentinel.master_for(path[0] if path else _SERVICE)
    for each in (client, *sentinel.sentinels):
        _look_at_arguments(each)
        sockets.watch(each, sockets.of_redis)
    return client
