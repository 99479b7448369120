"""A page that runs an exported model in the browser: one file that holds all it needs."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from wbcclf._files import read_regular, replacing, shown
from wbcclf._version import __version__
from wbcclf.onnx import load

OTHER = ".other"  # a correction: none of the classes, or no cell; app.js has it, too
LARGEST = 100_000_000  # bytes of a model: browsers hold a page as one text, a third larger

RUNTIME_SCRIPT, RUNTIME_WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
RUNTIME_FILES = (RUNTIME_SCRIPT, RUNTIME_WASM, *LICENCES)

_HERE = Path(__file__).parent
_RUNTIME = _HERE / "vendor"  # what `make browser` puts there
_SCRIPTS = ("pixels.js", "square.js", "app.js")
_FACTOR = 3.0  # nucleus diameters, where the cropper leaves it to its default
_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "browser"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
)


def export_page(model: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Write a page that runs an exported model in the browser, without a server or a network.

    ``index.html`` holds the model, ONNX Runtime Web and all else. It opens by a double click, and
    asks no network for anything. The other files are for a web server: with them the page can be
    installed on a phone. Pictures never leave the device.

    Where the model cuts around the white cell, the page proposes a square around the nucleus, which
    the user can move. The rule is simpler than that of :class:`CellCropper`; docs/field-use.md says
    how often the answer is the same.

    Parameters
    ----------
    model : str or path
        A file that :func:`export_onnx` wrote, at most 100 MB.
    folder : str or path
        Folder to write to; it is made if it is not there. Files of an earlier page are replaced,
        others stay.

    Raises
    ------
    ModelFormatError
        If `model` is not such a file, or was damaged.
    ValueError
        If `model` is too large, a class has a name that the page needs, or it cuts pictures in a
        way that the page does not know: only
        ``CellCropper(scale="nucleus")`` or a number of pixels, with ``stain="keep"``, and
        ``background="keep"`` or ``"normalise"``.
    FileNotFoundError
        If `model` is not there, or ONNX Runtime Web is missing from this installation: the message
        says what to run.
    ImportError
        If onnxruntime is missing: ``pip install "wbcclf[onnx]"``.
    OSError
        If a file cannot be read or written. Each file is written as a whole or not at all.

    Examples
    --------
    >>> from wbcclf import export_page
    >>> export_page("model.onnx", "page/")  # doctest: +SKIP
    """
    about, name = load(model, n_threads=1).metadata, shown(os.fsdecode(model))
    data = read_regular(model)
    if len(data) > LARGEST:
        raise ValueError(
            f"{name} has {len(data) / 1e6:.0f} MB; a page takes models of up to "
            f"{LARGEST / 1e6:.0f} MB. Export it with --int8, or train a smaller network."
        )
    classes = [str(label) for label in about["classes"]]  # JavaScript writes True and 1.0 otherwise
    uncertain = "uncertain" if isinstance(about["classes"][0], str) else "-1"  # as in `predict`
    if {uncertain, OTHER} & {*classes}:
        raise ValueError(
            f"{name} has a class called {uncertain} or {OTHER}, which mean something else on the "
            "page. Train with another name for it."
        )
    if about["crop"] is not None:
        _check_crop(about["crop"], name)
    check_runtime()
    page = _page(data, about, classes, uncertain).encode()
    digest = sha256(page).hexdigest()[:16]
    licences = b"\n\n".join((_RUNTIME / file).read_bytes() for file in LICENCES)
    files = {
        "index.html": page,
        "sw.js": _PAGES.get_template("sw.js").render(digest=digest).encode(),
        "manifest.webmanifest": (_HERE / "browser" / "manifest.webmanifest").read_bytes(),
        "icon.svg": (_HERE / "browser" / "icon.svg").read_bytes(),
        "licences.txt": licences,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)


def check_runtime() -> None:
    """Fail if this installation lacks what pages run on."""
    for file in RUNTIME_FILES:
        if not (_RUNTIME / file).is_file():
            raise FileNotFoundError(
                f"{_RUNTIME / file} is missing: this installation has no ONNX Runtime Web, which "
                "the page runs on. Run `make browser` in a checkout of wbcclf (it needs npm), or "
                "install a wheel that has it."
            )


def _check_crop(crop: Mapping[str, Any], name: str) -> None:
    """Fail if the page cannot cut as the model's cropper does."""
    known = (
        (crop["scale"] == "nucleus" or isinstance(crop["scale"], int))
        and crop["stain"] == "keep"
        and crop["background"] in ("keep", "normalise")
    )
    if not known:
        raise ValueError(
            f"{name} cuts pictures with {crop}. The page can propose squares of "
            'CellCropper(scale="nucleus") or of a number of pixels, with stain="keep" and '
            'background="keep" or "normalise". Train with such a cropper.'
        )


def _page(data: bytes, about: Mapping[str, Any], classes: list[str], uncertain: str) -> str:
    crop = about["crop"]
    if crop is not None:
        crop = crop | {"factor": _FACTOR if crop["factor"] is None else crop["factor"]}
    script = _script()
    style = (_HERE / "browser" / "style.css").read_text(encoding="utf-8")
    known = {name: about[name] for name in ("image_size", "thresholds", "strange")}
    # In JSON "<" stands only inside of texts: without it, none of them can end the element.
    text = json.dumps(known | {"classes": classes, "crop": crop, "uncertain": uncertain})
    text = text.replace("<", r"\u003c")
    rejection = about["rejection"]
    return _PAGES.get_template("page.html").render(
        classes=classes,
        uncertain=uncertain,
        limits=about["limits"],
        shares=sorted(about["thresholds"], key=float),
        rejection=None if rejection is None else str(rejection),
        cropped=None if crop is None else crop["which"],
        version=__version__,
        digest=about["model_sha256"][:12],
        icon=_base64((_HERE / "browser" / "icon.svg").read_bytes()),
        style=Markup(style),
        style_digest=_digest(style),
        script=Markup(script),
        script_digest=_digest(script),
        about=Markup(text),
        runtime=_packed((_RUNTIME / RUNTIME_WASM).read_bytes()),
        model=_packed(data),
    )


def _script() -> str:
    """Return one module: ONNX Runtime Web, then the page's own scripts in a block of their own."""
    runtime = (_RUNTIME / RUNTIME_SCRIPT).read_text(encoding="utf-8")
    code, _, rest = runtime.rpartition("export{")
    # `export{local as Name,...}`: inside one module the names are those of an object instead.
    names = re.findall(r"([\w$]+) as (\w+)", rest.partition("}")[0])
    members = ", ".join(f"{name}: {local}" for local, name in names)
    own = "".join((_HERE / "browser" / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return f"{code}\n{{\nconst ort = {{ {members} }};\n{own}}}\n"


def _packed(data: bytes) -> str:
    return _base64(gzip.compress(data, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(text: str) -> str:
    return _base64(sha256(text.encode()).digest())
