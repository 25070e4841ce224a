"""Put older versions of snowplow-tracker where `reference.py` looks for them.

    python tests/support/install_reference.py

0.15.0 is the one whose documentation is kept to; 1.0.0 is the first whose payloads `Tracker` builds. The newest one is
installed as any package is; tests run these in processes of their own.
"""

import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "pip", "install", "-qq", "--upgrade", "--no-deps"]
DIRECTORIES = {"0.15.0": "reference-0.15", "1.0.0": "reference-1.0"}


def install(version: str, directory: str) -> int:
    what = [f"snowplow-tracker=={version}", "--target", str(Path(sys.prefix, directory))]
    return subprocess.run([*COMMAND, *what], check=False).returncode


if __name__ == "__main__":
    sys.exit(max(install(*item) for item in DIRECTORIES.items()))
