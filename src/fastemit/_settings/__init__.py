"""The rules for arguments: what each may be, written once.

`checks` has one function for each kind of argument. It returns the value as it is kept, or raises a `TypeError` or
`ValueError` that names the argument, the value and what is allowed. Every public constructor and setter calls it.
Nothing here knows what an argument is used for.
"""

from fastemit._settings import checks

__all__ = ["checks"]
