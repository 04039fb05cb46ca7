"""What an engine's log says of its end."""

from __future__ import annotations

from pathlib import Path

from labelgen.teachers.engine_log import cause_in

PREFIX = "(EngineCore pid=5753) ERROR 11-24 15:12:36 [core.py:1512] "


def test_the_last_error_of_this_run_is_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    before = f"{PREFIX}ValueError: of a run before\n"
    lines = [
        "    raise RuntimeError(",
        "RuntimeError: Worker failed with error 'cannot allocate memory'",
        "[shutdown] Executor: waiting for worker exit",
    ]
    log.write_text(before + "".join(f"{PREFIX}{line}\n" for line in lines))
    assert cause_in(log, start=len(before)) == "RuntimeError: Worker failed with error 'cannot allocate memory'"
    log.write_text(before + f"{PREFIX}all is well\n")
    assert cause_in(log, start=len(before)) is None
    assert cause_in(tmp_path / "none.log") is None
