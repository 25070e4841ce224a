"""What `_system.pyx` offers to the other extensions."""

cdef const long* fork_count() noexcept
