"""Silence for the decoders of TIFF files, which print, log and warn about what they find."""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
from PIL import TiffImagePlugin, _imaging

__all__ = ["quiet"]

LOG_SILENT = 0
_set_log_level = cv2.utils.logging.setLogLevel  # returns the level before
_lock = threading.Lock()
_users = 0
_undo: list = []
_tiff_logger = logging.getLogger(TiffImagePlugin.__name__)

# Pillow turns off the warnings of its libtiff, but not the errors, which it raises as well.
_set_tiff_handler = None
with suppress(AttributeError, OSError):  # built into Pillow where nothing else can see it
    _set_tiff_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    _set_tiff_handler.argtypes, _set_tiff_handler.restype = [ctypes.c_void_p], ctypes.c_void_p


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings and log, libtiff's errors and OpenCV's log.

    The switches belong to the whole process, so the first thread in turns them off and the last one
    out restores them.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            handler = _set_tiff_handler(None) if _set_tiff_handler else None
            level, is_off = _set_log_level(LOG_SILENT), _tiff_logger.disabled
            _tiff_logger.disabled = True
            _undo[:] = [caught, handler, level, is_off]
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                caught, handler, level, is_off = _undo
                _tiff_logger.disabled = is_off
                if _set_tiff_handler:
                    _set_tiff_handler(handler)
                _set_log_level(level)
                caught.__exit__(None, None, None)
