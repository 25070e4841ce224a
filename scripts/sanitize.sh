#!/usr/bin/env bash
# The tests of the extensions under AddressSanitizer and UBSan, on a build that checks the buffer's invariants at every step.
#
#     scripts/sanitize.sh [pytest arguments]
#
# PYTHON names the interpreter (default .venv/bin/python); it needs the test tools and pip. Needs gcc on Linux, whose
# sanitizers' libraries come with it. Builds a copy of the sources in build/sanitize, so the normal build stays.
#
# A sanitizer writes to stderr, which pytest captures, and a child's may be read by nobody. So AddressSanitizer's reports
# go into files (log_path), and one file is a failure, whatever the tests say. UBSan beside it knows no log_path: it is
# built to end the process instead, and pytest is told to capture nothing. That all this works is tried first, by code
# that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
[[ $PYTHON == /* || $PYTHON != */* ]] || PYTHON=$PWD/$PYTHON
CC=${CC:-gcc}
export CC
WORK=$PWD/build/sanitize
KINDS=address,undefined
FATAL=-fno-sanitize-recover=undefined

library() { # library NAME: the sanitizer's library that the compiler links, which has to be loaded before Python
    local path
    path=$("$CC" -print-file-name="$1")
    [[ $path == /* ]] || { echo "make sanitize needs gcc with $1, and $CC has none" >&2; exit 1; }
    readlink -f "$path"
}

command -v "$CC" >/dev/null || { echo "make sanitize needs gcc, and there is no $CC on the path" >&2; exit 1; }
ASAN=$(library libasan.so)
UBSAN=$(library libubsan.so)

rm -rf "$WORK"
mkdir -p "$WORK/source" "$WORK/reports" "$WORK/proof"
cp -R setup.py pyproject.toml README.md LICENSE MANIFEST.in src "$WORK/source/"
find "$WORK/source/src" \( -name '*.so' -o -name '*.c' -o -name '*.egg-info' -o -name __pycache__ \) -prune \
    -exec rm -rf {} +

echo "Building with -fsanitize=$KINDS and FASTEMIT_DEBUG=1"
CFLAGS=$FATAL FASTEMIT_SANITIZE=$KINDS FASTEMIT_DEBUG=1 "$PYTHON" -m pip install --quiet --no-deps --no-warn-conflicts \
    --target "$WORK/site" "$WORK/source" >"$WORK/build.log" 2>&1 || { cat "$WORK/build.log" >&2; exit 1; }

# run REPORTS COMMAND...: run under the sanitizers, their reports into files REPORTS.<process id>
run() {
    local reports=$1
    shift
    # Python leaves memory to the system at its end, so leaks are told by tests of their own (tests/stress/test_leaks.py).
    # Its own allocator would hide where a block ends.
    env LD_PRELOAD="$ASAN $UBSAN" PYTHONMALLOC=malloc PYTHONPATH="$WORK/site" PYTHONDONTWRITEBYTECODE=1 \
        FASTEMIT_DEBUG=1 HYPOTHESIS_STORAGE_DIRECTORY="$WORK/hypothesis" \
        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1:log_path=$reports" \
        UBSAN_OPTIONS=print_stacktrace=1 "$@"
}

pytest=("$PYTHON" -m pytest -q --capture=no -o cache_dir="$WORK/cache" -p no:benchmark -p no:xdist --timeout 300)

# -- what is wrong must be seen, in a test itself and in a process that it starts --------------------------------------

cat >"$WORK/proof/wrong.c" <<'C'
#include <stdlib.h>
int past_the_end(int at) { char *block = calloc(8, 1); int got = block[at]; free(block); return got; }
int too_large(int number) { return number + 1; }
C
"$CC" -shared -fPIC -g -fsanitize=$KINDS $FATAL -o "$WORK/proof/wrong.so" "$WORK/proof/wrong.c"
cat >"$WORK/proof/test_wrong.py" <<'PY'
import ctypes, os, pathlib, subprocess, sys
import pytest
import importlib

LIBRARY = str(pathlib.Path(__file__).with_name("wrong.so"))
WRONG = {"past_the_end": 8, "too_large": 2**31 - 1}

def test_the_build_is_the_one_to_be_tested():
    marks = [b"__asan_report_load8", b"__ubsan_handle_add_overflow_abort"]
    for name in "_batch", "_buffer", "_encode", "_filed_ring", "_files", "_payload", "_system":
        file = importlib.import_module(f"fastemit.{name}").__file__
        assert file.startswith(os.environ["PYTHONPATH"])
        image = pathlib.Path(file).read_bytes()
        for mark in [*marks, b"ring invariant"] if name in ("_batch", "_buffer", "_filed_ring") else marks:
            assert mark in image, (name, mark)

@pytest.mark.parametrize("name", WRONG)
def test_here(name):
    getattr(ctypes.CDLL(LIBRARY), name)(WRONG[name])

@pytest.mark.parametrize("name", WRONG)
def test_in_a_child(name):
    source = f"import ctypes; ctypes.CDLL({LIBRARY!r}).{name}({WRONG[name]})"
    assert subprocess.run([sys.executable, "-c", source], capture_output=True).returncode != 0
PY

proof() { # proof NAME WANTED TEST: whether the test passes as it should; what it says into proof/NAME.log
    local got=passed
    run "$WORK/proof/$1.report" "${pytest[@]}" -p no:hypothesispytest -c /dev/null --rootdir "$WORK/proof" \
        "$WORK/proof/test_wrong.py::$3" >"$WORK/proof/$1.log" 2>&1 || got=failed
    [[ $got == "$2" ]] || doubt "$1"
}
seen() { # seen NAME TEXT: it was reported
    grep -qs "$2" "$WORK/proof/$1".* || doubt "$1"
}
doubt() {
    echo "The sanitizers do not work here, as code that is wrong ($1) shows:" >&2
    cat "$WORK/proof/$1.log" >&2
    exit 1
}

proof build passed test_the_build_is_the_one_to_be_tested
proof address failed 'test_here[past_the_end]'
seen address "AddressSanitizer: heap-buffer-overflow"
proof undefined failed 'test_here[too_large]'
seen undefined "runtime error: signed integer overflow"
proof child-address passed 'test_in_a_child[past_the_end]'
seen child-address "AddressSanitizer: heap-buffer-overflow"
proof child-undefined passed 'test_in_a_child[too_large]'
echo "Code that is wrong is seen, as it should be"

# -- the tests ---------------------------------------------------------------------------------------------------------

tests() { # tests [pytest arguments]
    run "$WORK/reports/report" "${pytest[@]}" -m "" tests/buffer tests/spool tests/reference/test_tracker_*.py "$@"
}

status=0
tests "$@" || status=$?
if ((status == 1)); then
    # Tests wait with deadlines, and this build is slow on a machine that is shared. A report of a sanitizer stays one.
    echo "== what failed once more"
    status=0
    tests "$@" --last-failed --last-failed-no-failures none || status=$?
fi
shopt -s nullglob
reports=("$WORK"/reports/*)
if ((${#reports[@]})); then
    echo "The sanitizers have ${#reports[@]} reports:" >&2
    head -n 60 "${reports[@]}" >&2
    exit 1
fi
exit "$status"
