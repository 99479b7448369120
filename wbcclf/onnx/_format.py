"""What a wbcclf ONNX file is: the names in it, and the seal at its end.

The file is a serialized model, then the seal: a serialized model that holds nothing but one
metadata property, the SHA-256 of all before it. Protocol buffers merge messages that follow each
other, so every ONNX reader sees one model. The seal has a fixed length, so it is checked without a
parser.
"""

from __future__ import annotations

import hashlib

FORMAT = 1  # raised when what older versions of wbcclf understand of a file would be wrong
KEY = "wbcclf"  # of the metadata property that holds all about the model, a JSON object
HASH_KEY = "wbcclf_sha256"  # of the one that the seal holds

INPUT = "images"  # uint8 (n, height, width, 3), RGB
PROBABILITIES = "probabilities"  # float32 (n, n_classes)
FAMILIARITY = "familiarity"  # float32 (n,), 0 to 1; like CERTAINTY only with a description
CERTAINTY = "certainty"  # float32 (n,), log-odds, lowered for strange images

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of wrong calls, for which thresholds are kept

_HEX = 2 * hashlib.sha256().digest_size
# Field 14 of ModelProto is metadata_props; its entries hold a key (1) and a value (2). A field of
# type 2 is preceded by its number and its length, which are one byte each here.
_ENTRY = b"\x0a%c%b\x12%c" % (len(HASH_KEY), HASH_KEY.encode(), _HEX)
_SEAL = b"\x72%c%b" % (len(_ENTRY) + _HEX, _ENTRY)
SUFFIX = len(_SEAL) + _HEX  # bytes of a seal


def sealed(model: bytes) -> bytes:
    """Return a serialized model with its seal."""
    return model + _SEAL + hashlib.sha256(model).hexdigest().encode()


def unsealed(data: bytes) -> bytes:
    """Return the serialized model in a file's bytes.

    Raises
    ------
    ValueError
        With the reason only, if there is no seal or the model is not the one that was sealed.
    """
    model, seal = data[:-SUFFIX], data[-SUFFIX:]
    if not seal.startswith(_SEAL):
        raise ValueError("not a wbcclf ONNX file, or one that was cut off or changed")
    if seal[len(_SEAL) :] != hashlib.sha256(model).hexdigest().encode():
        raise ValueError("damaged or changed after it was written")
    return model
