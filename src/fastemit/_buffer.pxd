"""What `_buffer.pyx` offers to the other extension of this package."""

cdef const long* fork_count() noexcept
