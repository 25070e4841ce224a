"""The rules for arguments, each written once.

`checks` has one function for each kind of argument. It returns the value as it is kept, or raises a `TypeError` or
`ValueError` that names the argument, the value and what is allowed. `settings` has the rule for each setting of an
emitter, by its name. All public constructors and setters use these rules. Nothing here knows what a setting is for.
"""

from fastemit._settings import checks
from fastemit._settings.settings import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_BUFFER_CAPACITY,
    DEFAULT_REQUEST_BYTES,
    RULES,
    Settings,
    bounds,
    checked,
)

__all__ = [
    "DEFAULT_BUFFER_BYTES",
    "DEFAULT_BUFFER_CAPACITY",
    "DEFAULT_REQUEST_BYTES",
    "RULES",
    "Settings",
    "bounds",
    "checked",
    "checks",
]
