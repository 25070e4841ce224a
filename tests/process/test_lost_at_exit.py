"""`on_lost` at the end of the process."""

from __future__ import annotations

import pytest

from tests.support.delivery import Ended, Rig, Script

#: Ends in the number that a script prints last.
LOST = """
        def lost(reason, events):
            print(reason, [event["n"] for event in events], flush=True)
            the_end()
        def emitter(**settings):
            return Emitter(URL, batch_size=3, shutdown_timeout=0.1, on_lost=lost, **settings)
"""


def told(ended: Ended) -> list[str]:
    assert ended.status == 0
    return [line for line in ended.lines if line.startswith("left")]


@pytest.mark.parametrize("background", [True, False])
def test_what_the_end_of_the_process_leaves_is_told(rig: Rig, run: Script, background: bool) -> None:
    rig.collector.respond(503, times=None)
    ended = run(f"""{LOST}
        e = emitter(background={background})
        put(e, 3)
    """)
    assert told(ended) == ["left ['0', '1', '2']"]


def test_what_is_in_a_request_at_the_end_of_the_process_is_told(rig: Rig, run: Script) -> None:
    rig.collector.respond(hang=True, times=None)
    ended = run(f"""{LOST}
        e = emitter()
        put(e, 3)
    """)
    assert told(ended) == ["left ['0', '1', '2']"]


def test_what_a_dropped_emitter_leaves_at_the_end_is_told(rig: Rig, run: Script) -> None:
    rig.collector.respond(503, times=None)
    ended = run(f"""{LOST}
        put(emitter(), 3)
    """)
    assert told(ended) == ["left ['0', '1', '2']"]


def test_what_an_exit_handler_gives_in_and_does_not_flush_is_told(rig: Rig, run: Script) -> None:
    rig.collector.respond(503, times=None)
    before = """
        import atexit
        atexit.register(lambda: e.input({"n": 7}))
    """
    ended = run(
        f"""{LOST}
        e = emitter()
        put(e, 1)
        """,
        before,
    )
    assert told(ended) == ["left ['0']", "left ['7']"]
