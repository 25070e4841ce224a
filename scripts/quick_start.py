"""Run the Python of the README's first screen and of "Test your tracking", as an installed fastemit has it.

    python scripts/quick_start.py README.md

Needs `fastemit[tracker]`. Events go to a development collector in place of the README's example host, and what
arrives is looked at.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from fastemit import __version__
from fastemit.testing import Collector

EXAMPLE_HOST = '"collector.example.com"'


def blocks(readme: str) -> list[str]:
    """The Python examples, in order."""
    return re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)


def run(source: str, name: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec"), names)
    return names


def main() -> None:
    examples = blocks(Path(sys.argv[1]).read_text("utf-8"))
    (first,) = [source for source in examples if EXAMPLE_HOST in source and "Tracker(" in source]
    with Collector() as collector:
        tracker = run(first.replace(EXAMPLE_HOST, repr(collector.url)), "quick start")["tracker"]
        tracker.flush()
        (event,) = collector.wait_for(1, 10)
        assert (event["e"], event["url"], event["page"]) == ("pv", "https://example.com", "Home"), event
    (testing,) = [source for source in examples if "from fastemit.testing import Collector" in source]
    run(testing, "test your tracking")
    print(f"fastemit {__version__} has run the quick start")


if __name__ == "__main__":
    main()
