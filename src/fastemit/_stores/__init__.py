"""Event stores of the user's, and other queues that keep books beside the native buffer.

`StoreBuffer` gives an object with the `EventStore` methods the face of the native buffer, so that the delivery has one
kind of queue. It counts what it put in and took out, since a store may say anything of its size. `BufferAround` and
`BatchAround` wrap the native buffer for those who note what is settled, such as the Redis worker. Emitters make them;
only the names below are for other packages.
"""

from fastemit._stores.adapter import StoreBuffer
from fastemit._stores.wrapped import BatchAround, BufferAround

__all__ = ["BatchAround", "BufferAround", "StoreBuffer"]
