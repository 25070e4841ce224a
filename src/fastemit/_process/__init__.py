"""The process: what happens to open deliveries when it forks or ends.

A registry of weak references knows every delivery that is open. The hooks of fork and exit go through it. A child
starts empty, and the end of the process sends what is left. Children of `multiprocessing` and Celery run no `atexit`,
so they get a finalizer of their own. `sockets` makes sure that a child neither uses nor closes what its parent had
open. Only the delivery and the transports call these functions.
"""

from fastemit._process import lifecycle, sockets
from fastemit._process.lifecycle import renew_pools

__all__ = ["lifecycle", "renew_pools", "sockets"]
