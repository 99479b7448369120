"""Fixtures that all rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wbcclf_data() -> Path:
    """Return the folder with real images."""
    if "WBCCLF_DATA" not in os.environ:
        pytest.skip("WBCCLF_DATA is not set: tests on real images need that folder")
    return Path(os.environ["WBCCLF_DATA"])
