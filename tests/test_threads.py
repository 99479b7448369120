"""Work that is done in a thread beside other work."""

import threading
import time

import pytest

from wbcclf._threads import ahead


def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wbcclf")]


def test_one_item_is_made_while_one_is_in_use_and_no_more():
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    used = []
    for number in ahead(items()):
        deadline = time.monotonic() + 10
        while len(made) < min(number + 2, 5) and time.monotonic() < deadline:
            time.sleep(0.001)
        used.append(number)
        assert made == list(range(min(number + 2, 5)))
    assert used == list(range(5))
    assert not names()


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise KeyboardInterrupt

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert not names()


def test_what_is_closed_early_leaves_no_thread():
    found = ahead(iter(range(100)))
    next(found)
    assert names()
    found.close()
    assert not names()
