"""What the tests of loaders share."""

import os
from contextlib import contextmanager

import pytest


@pytest.fixture
def unprivileged():
    """Drop root's right, which CI has, to read every file, inside a with block."""

    @contextmanager
    def drop():
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return drop
