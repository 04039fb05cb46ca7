"""The benchmarks run, with tiny inputs, so that they cannot rot; what they measure is judged by people."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_driver_capacity_runs(tmp_path: Path) -> None:
    import driver_capacity

    figures = driver_capacity.measure(num_labels=600, top_k=16, response_tokens=50, block_size=4, root=tmp_path)
    assert figures["labels"] == 600 and figures["labels_per_second"] > 0


@pytest.mark.engine
def test_capture_cost_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import capture_cost

    monkeypatch.setattr(capture_cost, "NUM_POSITIONS", 8)
    monkeypatch.setattr(capture_cost, "NUM_ROUNDS", 1)
    monkeypatch.setattr(capture_cost, "TOP_KS", (4,))
    monkeypatch.setattr("sys.argv", ["capture_cost.py"])
    capture_cost.main()
    assert '"top_k": 4' in capsys.readouterr().out


def test_open_encodings_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import open_encodings

    from make_records import make_dataset

    monkeypatch.setattr("sys.argv", ["open_encodings.py", str(make_dataset(tmp_path))])
    open_encodings.main()
    assert "| logprobs | BYTE_STREAM_SPLIT |" in capsys.readouterr().out


def test_row_groups_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import row_groups

    from make_records import make_dataset

    monkeypatch.setattr("sys.argv", ["row_groups.py", str(make_dataset(tmp_path))])
    row_groups.main()
    assert "| open | 2^16 |" in capsys.readouterr().out
