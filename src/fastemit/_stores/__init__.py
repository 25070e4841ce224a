"""Event stores that a user wrote, and other queues that keep books beside the native buffer.

`StoreBuffer` makes an object with the `EventStore` methods look like the native buffer, so that the delivery has one
kind of queue. It counts what it puts in and takes out, because the size that a store tells may be wrong.
`BufferAround` and `BatchAround` wrap the native buffer for those who note what is settled, such as the Redis worker.
Emitters make them; only the names below are for other packages.
"""

from fastemit._stores.adapter import StoreBuffer
from fastemit._stores.wrapped import BatchAround, BufferAround

__all__ = ["BatchAround", "BufferAround", "StoreBuffer"]
