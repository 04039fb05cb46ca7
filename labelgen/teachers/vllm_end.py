"""How an engine ends: what vLLM's client leaves undone, when it is closed and when its process dies.

vLLM 0.32 notices the death of its EngineCore process, marks the client dead and cleans up, but a driver that waits in
`step` or in a call to the workers is never woken: SyncMPClient's output thread ends without a word
(core_client.py, `process_outputs_socket`). Every name used here is looked for, not taken for granted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from concurrent.futures import InvalidStateError
from typing import Any

__all__ = ["close_sockets", "describe_death", "has_died", "wake_at_death"]


def wake_at_death(engine: Any) -> None:
    """Let whoever waits for the engine's output get vLLM's EngineDeadError when there will be none any more."""
    client = engine.engine_core
    outputs, thread = getattr(client, "outputs_queue", None), getattr(client, "output_queue_thread", None)
    if outputs is not None and thread is not None:
        arguments = (thread, outputs, getattr(client, "utility_results", {}))
        threading.Thread(target=_wake, args=arguments, name="labelgen-engine-watch", daemon=True).start()


def has_died(engine: Any) -> bool:
    """Return whether the engine has ended without being asked to."""
    return bool(getattr(getattr(engine.engine_core, "resources", None), "engine_dead", False))


def describe_death(engine: Any) -> str:
    """Return which process of the engine ended, and how; empty where that cannot be seen."""
    manager = getattr(getattr(engine.engine_core, "resources", None), "engine_manager", None)
    ends = []
    for process in getattr(manager, "processes", ()):
        process.join(timeout=5)  # it is dying; its exit code comes when it is dead
        if (code := process.exitcode) is not None and code < 0:
            ends.append(f"its process {process.pid} was killed with {signal.Signals(-code).name}")
        elif code:
            ends.append(f"its process {process.pid} ended with exit code {code}")
    return ", ".join(ends)


def close_sockets(engine: Any) -> None:
    """Close what the client of an ended engine still holds open: its ZeroMQ context."""
    context: Any = getattr(engine.engine_core, "ctx", None)
    thread = getattr(engine.engine_core, "output_queue_thread", None)
    if thread is not None:
        thread.join(timeout=5)  # the output socket is its own to close
        if context is not None and not thread.is_alive():
            context.destroy(linger=0)


def _wake(thread: threading.Thread, outputs: Any, waiting: dict[int, Any]) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    thread.join()
    outputs.put_nowait(EngineDeadError())
    for future in list(waiting.values()):
        with contextlib.suppress(InvalidStateError):  # it was answered just before
            future.set_exception(EngineDeadError())
