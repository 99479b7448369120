"""Run the examples, and write docs/examples.md with their text, code, output and figures.

Run: python docs/pictures/examples.py; `make pictures` does so, two minutes.
"""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = Path(__file__).parent / "examples"
HEAD = """\
# Examples

Scripts that run as they stand, on synthetic cells. They are in the folder `examples`. Output and
figures are those of one run; another machine may round differently. Drawings are easier than blood:
no score here says anything about real cells.
"""


def main() -> None:
    """Write the page and the pictures."""
    PICTURES.mkdir(exist_ok=True)
    parts = [HEAD]
    for path in sorted((ROOT / "examples").glob("*.py")):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
            output = subprocess.run(
                [sys.executable, path],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            picture = Image.open(Path(folder, f"{path.stem}.png")).convert("RGB")
        picture.thumbnail((900, 900))
        picture = picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(PICTURES / f"{path.stem}.png", optimize=True)
        parts.append(section(path, output))
        print(path.name)
    (ROOT / "docs" / "examples.md").write_text(
        "\n".join(parts) + "\nNext: [tutorial](tutorial.md).\n"
    )


def section(path: Path, output: str) -> str:
    """Return what the page says of one example."""
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    title, *paragraphs = (" ".join(part.split()) for part in docstring.split("\n\n"))
    said = "\n\n".join(part for part in paragraphs if not part.startswith("Run:"))
    code = text.partition('"""\n\n')[2]
    alternative = f"The figure of {path.name}: {title[0].lower()}{title[1:]}"
    picture = f"![{alternative}](pictures/examples/{path.stem}.png)"
    return "\n\n".join(
        [
            f"## {title.rstrip('.')}",
            said,
            f"`examples/{path.name}`",
            f"```py\n{code.rstrip()}\n```",
            f"```text\n{output.rstrip()}\n```",
            f"{picture}\n",
        ]
    )


if __name__ == "__main__":
    main()
