"""The process: what happens to open deliveries when it divides or ends.

A registry of weak references knows every delivery that is open. The hooks of fork and exit walk over it: a child starts
empty, and the end of the process sends what is left. Children of `multiprocessing` and Celery, which run no `atexit`,
get a finalizer of their own. `sockets` sees to it that a child neither uses nor closes what its parent had open. The
delivery and the transports call these functions; nobody else does.
"""

from fastemit._process import lifecycle, sockets
from fastemit._process.lifecycle import renew_pools

__all__ = ["lifecycle", "renew_pools", "sockets"]
