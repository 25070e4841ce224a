"""Makes an extension of each .pyx. Everything else is in pyproject.toml. A plain ``pip install`` needs no switch:

FASTEMIT_LINETRACE=1  line tracing, for coverage of the .pyx
FASTEMIT_DEBUG=1      no optimisation, symbols, assertions on the structs' invariants
FASTEMIT_SANITIZE=address,undefined  the sanitizers to compile in
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

LINETRACE = os.environ.get("FASTEMIT_LINETRACE") == "1"
DEBUG = os.environ.get("FASTEMIT_DEBUG") == "1"
SANITIZE = os.environ.get("FASTEMIT_SANITIZE", "")

macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if LINETRACE else []
macros += [("FASTEMIT_ASSERT", "1")] if DEBUG else []
# Without -g0 the extension has twice the size, because Python was built with -g, and passes that on.
cflags = [] if sys.platform == "win32" else ["-O0", "-g3"] if DEBUG else ["-O3", "-g0"]
sanitizer = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []
# -s removes the names of functions that nobody links to, which are a tenth of an extension.
stripped = ["-s"] if sys.platform == "linux" and not DEBUG and not SANITIZE else []

extensions = [
    Extension(
        f"fastemit.{source.stem}",
        [source.as_posix()],
        define_macros=macros,
        extra_compile_args=cflags + sanitizer,
        extra_link_args=sanitizer + stripped,
    )
    for source in sorted(Path("src/fastemit").glob("*.pyx"))
]
directives = {"language_level": 3, "embedsignature": True, "linetrace": LINETRACE, "cdivision": True}
# With DEBUG the C names the lines of the .pyx, so that gdb can show them.
setup(ext_modules=cythonize(extensions, compiler_directives=directives, emit_linenums=DEBUG))
