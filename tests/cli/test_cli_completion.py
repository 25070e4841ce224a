"""`fastemit --print-completion`, in bash itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastemit import cli
from tests.support.environment import output_of

SHELLS = ["bash", "zsh", "fish"]


def printed(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert cli.main(["--print-completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_knows_every_command_and_option(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    script = printed(capsys, shell)
    for word in ("collector", "send", "redis-worker", "bench", "dry-run", "drain-timeout", "max-bytes"):
        assert word in script


def bash_completes(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    program = f"""
source {script}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}"; COMP_POINT=${{#COMP_LINE}}
complete -p fastemit >/dev/null || exit 3
function=$(complete -p fastemit | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" fastemit "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], cwd=script.parent, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_bash_completes_with_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(printed(capsys, "bash"))
    (tmp_path / "events.ndjson").touch()
    assert bash_completes(script, "fastemit", "s") == ["send", "spool"]
    assert sorted(bash_completes(script, "fastemit", "send", "--dr")) == ["--drain-timeout", "--dry-run"]
    assert bash_completes(script, "fastemit", "send", "--method", "g") == ["get"]
    assert bash_completes(script, "fastemit", "send", "--failed", "ev") == ["events.ndjson"]


def test_an_unknown_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--print-completion", "csh"]) == 2
    assert "--print-completion: invalid choice: 'csh'" in capsys.readouterr().err


def test_without_shtab_it_says_what_to_install() -> None:
    program = """
import contextlib, io, sys
sys.modules["shtab"] = None
from fastemit.cli import main
told = io.StringIO()
with contextlib.redirect_stderr(told):
    status = main(["--print-completion", "bash"])
print(status, told.getvalue(), end="")
"""
    needs = 'fastemit: error: --print-completion needs the package shtab: pip install "fastemit[cli]"'
    assert output_of(program) == f"1 {needs}"
