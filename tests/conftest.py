"""What all tests share: engines bring warnings of their own, which are not ours to turn into errors."""

from __future__ import annotations

import pytest

from s3_server import running_proxy, s3_proxy

__all__ = ["pytest_collection_modifyitems", "running_proxy", "s3_proxy"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(name) for name in ("engine", "more_engines")):
            item.add_marker(pytest.mark.filterwarnings("default"))
