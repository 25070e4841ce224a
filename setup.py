"""The two extensions; everything else is in pyproject.toml.

Switches, read from the environment so that a plain ``pip install`` needs none of them:
FASTEMIT_LINETRACE=1  line tracing, for coverage of the .pyx
FASTEMIT_DEBUG=1      no optimisation, symbols, assertions on the structs' invariants
FASTEMIT_SANITIZE=address,undefined  the sanitizers to compile in
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

LINETRACE = os.environ.get("FASTEMIT_LINETRACE") == "1"
DEBUG = os.environ.get("FASTEMIT_DEBUG") == "1"
SANITIZE = os.environ.get("FASTEMIT_SANITIZE", "")

macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if LINETRACE else []
if DEBUG:
    macros.append(("FASTEMIT_ASSERT", "1"))
unix = sys.platform != "win32"
# Without -g0 the extension is as large again as it need be: Python was built with -g, and hands that on.
cflags = (["-O0", "-g3"] if DEBUG else ["-O3", "-g0"]) if unix else []
sanitizer = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []

extensions = [
    Extension(
        f"fastemit.{name}",
        [f"src/fastemit/{name}.pyx"],
        define_macros=macros,
        extra_compile_args=cflags + sanitizer,
        extra_link_args=sanitizer,
    )
    for name in ("_buffer", "_payload")
]
directives = {"language_level": 3, "embedsignature": True, "linetrace": LINETRACE, "cdivision": True}
# For cygdb: the map from the C to the .pyx, in cython_debug/.
setup(ext_modules=cythonize(extensions, compiler_directives=directives, emit_linenums=DEBUG))
