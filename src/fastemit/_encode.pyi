from typing import Any, Final, final

from typing_extensions import Self

def is_plain(payload: dict[Any, Any]) -> bool: ...

@final
class KeptEvent:
    encoded: Final[bytes]
    original: Final[Any]
    def __new__(cls, encoded: bytes, original: object) -> Self: ...
