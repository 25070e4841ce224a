"""Put snowplow-tracker 0.15.0, the one whose documentation is kept to, where `reference.py` looks for it.

    python tests/support/install_reference.py

The newest one is installed as any package is; tests run this one in a process of its own.
"""

import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "pip", "install", "-qq", "--upgrade", "--no-deps", "snowplow-tracker==0.15.0"]

if __name__ == "__main__":
    sys.exit(subprocess.run([*COMMAND, "--target", str(Path(sys.prefix, "reference-0.15"))], check=False).returncode)
