"""What the audit keeps of every picture: digest, header, colours and style."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from wbcclf._threads import run_blocks_in_threads
from wbcclf.datasets._decode import DIGEST_BYTES, decode_image, read_file
from wbcclf.datasets._file_facts import FACTS, file_facts
from wbcclf.exceptions import ImageReadError

SIDE = 96  # pixels that every picture is brought to: colours and style are then of one scale
CORNER = 12  # pixels of the side of each corner, which a cell in the middle does not reach
UNREADABLE = dict.fromkeys(FACTS, "a header that cannot be read")
N_STYLE, N_COLOURS = 21, 3


class Pictures:
    """Image files, and what is kept of each.

    Attributes
    ----------
    paths : list of str
    reasons : list of str
        Why a file is not read, else empty.
    digests : list of bytes
        The same for files that are the same to the last byte; empty if a file is not read.
    facts : list of dict
        See `file_facts`.
    means, corners : ndarray of shape (n_files, 3), float32
        Mean colour, 0 to 255, of the whole picture and of its four corners.
    styles : ndarray of shape (n_files, N_STYLE), float32
    """

    def __init__(self, paths: Sequence[str], n_jobs: int | None, verbose: int) -> None:
        self.paths = list(paths)
        n_files = len(self.paths)
        self.reasons = [""] * n_files
        self.digests = [b""] * n_files
        self.facts = [UNREADABLE] * n_files
        self.means = np.zeros((n_files, N_COLOURS), np.float32)
        self.corners = np.zeros((n_files, N_COLOURS), np.float32)
        self.styles = np.zeros((n_files, N_STYLE), np.float32)
        run_blocks_in_threads(self._look, n_files, n_jobs, verbose)
        self.is_read = np.array([not why for why in self.reasons])

    def _look(self, indices: range) -> None:
        # torch is imported when it is needed, so that `import wbcclf` stays light.
        import torch

        from wbcclf.preprocessing._style import style

        read, images = [], []
        for index in indices:
            try:
                data = read_file(self.paths[index])
                images.append(decode_image(data, (SIDE, SIDE)))
            except ImageReadError as error:
                self.reasons[index] = str(error)
                continue
            read.append(index)
            self.digests[index] = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            self.facts[index] = header_of(data)
        if not read:
            return
        batch = np.stack(images)
        self.means[read] = batch.mean(axis=(1, 2))
        ends = np.r_[:CORNER, SIDE - CORNER : SIDE]
        self.corners[read] = batch[:, ends][:, :, ends].mean(axis=(1, 2))
        with torch.inference_mode():
            seen = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1
            self.styles[read] = style(seen).numpy()


def header_of(data: bytes) -> dict[str, str]:
    """Return what a header tells; that it cannot be read is a fact, too."""
    try:
        return file_facts(data)
    except ImageReadError:
        return UNREADABLE
