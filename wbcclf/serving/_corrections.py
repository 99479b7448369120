"""Pictures with the classes that people give them: a labelled folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from wbcclf._files import replacing
from wbcclf.datasets._decode import find_format

OTHER = ".other"  # hidden, so that what is in it is left out when the folder is read
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif"}
LONGEST_NAME = 200  # bytes


class Corrections:
    """A folder with a folder for each class.

    Pictures are named after their bytes. So each is there once, under the class that was given
    last.

    Parameters
    ----------
    folder : path
        Made when the first picture is saved.
    classes : list of str

    Raises
    ------
    ValueError
        If a class cannot be the name of a folder.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        for name in classes:
            if not _is_folder_name(name):
                raise ValueError(
                    f"--corrections: the model's class {name!r} cannot be the name of a folder. "
                    "Leave --corrections out."
                )
        self.folder = folder
        self.names = [*classes, OTHER]

    def save(self, data: bytes, name: str) -> str:
        """Save a picture under one of `names`; return its file, below the folder."""
        file = f"{sha256(data).hexdigest()[:40]}{SUFFIXES[find_format(data)]}"
        places = [self.folder / each / file for each in self.names]
        saved = next((place for place in places if place.exists()), None)
        target = self.folder / name / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if saved is None:  # where a crash leaves nothing that would be taken for a picture
            saved = self.folder / OTHER / file
            saved.parent.mkdir(exist_ok=True)
            with replacing(saved) as temporary:
                temporary.write_bytes(data)
        os.replace(saved, target)
        return f"{name}/{file}"


def _is_folder_name(name: str) -> bool:
    is_plain = name.isprintable() and not any(letter in name for letter in '/\\:*?"<>|')
    has_room = 0 < len(name.encode(errors="replace")) <= LONGEST_NAME
    return is_plain and has_room and not name.startswith(".") and name == name.strip(" .")
