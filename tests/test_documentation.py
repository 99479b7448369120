"""What the documentation shows runs, and what the package promises about importing holds."""

import ast
import html
import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from sklearn.utils import Bunch

import wbcclf
from wbcclf.cli._main import app

ROOT = Path(__file__).parents[1]


def python_blocks(name):
    text = (ROOT / name).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in TEXTS]
PAGES = [name for name in NAMES if python_blocks(name)]


# What takes longest on a page, and what is run in its place: less data and shorter trainings.
QUICKER = {
    "README.md": {"max_epochs=10": "max_epochs=1"},
    "docs/guide.md": {"max_epochs=4": "max_epochs=1"},
    "docs/evaluation.md": {
        "make_blood_cells(300, ": "make_blood_cells(80, ",
        "make_blood_cells(120, ": "make_blood_cells(30, ",
        "max_epochs=6": "max_epochs=1",
    },
}


def test_the_pages_with_code_are_found():
    assert len(PAGES) > 10
    assert {"README.md", "docs/guide.md"} < {*PAGES}


def test_the_readme_of_the_index_has_the_code_of_ours():
    assert python_blocks("PYPI.md") == python_blocks("README.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_code_blocks_of_a_page_run_one_after_the_other(
    name, registry, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    code = "\n".join(python_blocks(name))
    for page, here in QUICKER.get(name, {}).items():
        assert page in code
        code = code.replace(page, here)
    exec(compile(code, name, "exec"), namespace)
    assert capsys.readouterr().out


def test_the_shell_takes_the_commands_of_the_pages(tmp_path, monkeypatch):
    """They are parsed, not run: most need pictures or a model."""
    monkeypatch.chdir(tmp_path)
    Path("figures.json").touch()  # `count --evaluation` looks whether it is there
    group = typer.main.get_command(app)
    commands = 0
    for text in [*TEXTS, ROOT / "PYPI.md", ROOT / "examples" / "plugin" / "README.md"]:
        blocks = re.findall(r"^```\w*\n(.*?)^```", text.read_text(), re.MULTILINE | re.DOTALL)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            if line.startswith("wbcclf "):
                name, *arguments = shlex.split(line, comments=True)[1:]
                try:
                    group.commands[name].make_context(name, arguments)
                except Exception as error:
                    pytest.fail(f"{text.name}: {line}: {error.format_message()}")
                commands += 1
    assert commands > 70


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """Return a function that runs a script with arguments in an empty folder, as Python would."""
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="examples draw with matplotlib")
    monkeypatch.chdir(tmp_path)

    def run_example(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")

    yield run_example
    pyplot.close("all")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_draws_its_figure(path, run_example, capsys):
    run_example(path)
    assert capsys.readouterr().out
    assert Path(f"{path.stem}.png").stat().st_size > 1000


def test_the_page_of_examples_shows_the_scripts_as_they_are():
    assert len(EXAMPLES) >= 9
    page = (ROOT / "docs" / "examples.md").read_text()
    shown = re.findall(
        r"^`examples/(\S+)`\n\n```py\n(.*?)^```\n\n```text\n.+?^```", page, re.M | re.S
    )
    assert dict(shown) == {path.name: path.read_text().partition('"""\n\n')[2] for path in EXAMPLES}
    for path in EXAMPLES:
        assert f"](pictures/examples/{path.stem}.png)" in page


def test_the_pretrained_example_runs_with_real_weights(wbcclf_data, run_example, capsys):
    weights = wbcclf_data.parent / "weights" / "squeezenet1_1_features.npz"
    run_example(ROOT / "examples" / "search_unfrozen_layers.py", str(weights))
    assert capsys.readouterr().out.count("unfrozen_layers=") == 4


SCRIPTS = [
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "docs" / "pictures").glob("*.py")),
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports_what_the_package_has(path):
    """They take minutes to run, so a name that has moved is found here."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "wbcclf":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


@pytest.mark.parametrize(
    ("used", "left_out"),
    [
        ("wbcclf.__all__", ("torch", "skorch", "matplotlib", "typer")),
        ("wbcclf.find_cells", ("torch",)),
        ("wbcclf.__version__", ("numpy", "sklearn")),
        ("wbcclf.onnx", ("sklearn", "scipy", "PIL", "onnxruntime")),
    ],
)
def test_importing_stays_light(used, left_out):
    code = f"import sys, wbcclf; {used}; print({{*{left_out}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_are_there_before_they_are_used():
    code = "import wbcclf; print({*wbcclf.__all__} - {*dir(wbcclf)}); wbcclf.recepies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
    assert "AttributeError: module 'wbcclf' has no attribute 'recepies'" in done.stderr


API = re.findall(
    r"^::: (\S+)$",
    "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md")),
    flags=re.MULTILINE,
)


def resolve(name):
    """Return what a dotted name means; `wbcclf.recipes` is a module, `wbcclf.adapt` a function."""
    return pkgutil.resolve_name(re.sub(r"\.(\w+)$", r":\1", name))


def public_modules():
    """Import the modules that list public names."""
    names = [each.name for each in pkgutil.walk_packages(wbcclf.__path__, "wbcclf.")]
    public = (name for name in names if not re.search(r"\._", name))
    modules = [wbcclf, *map(importlib.import_module, public)]
    return [module for module in modules if hasattr(module, "__all__")]


def test_every_public_name_is_in_the_api_pages():
    described = [resolve(name) for name in API]
    described += [
        getattr(module, name)
        for module in described
        if inspect.ismodule(module)
        for name in getattr(module, "__all__", [])
    ]
    shown = {id(each) for each in described}
    modules = public_modules()
    assert len(modules) > 8
    names = {f"{module.__name__}.{name}" for module in modules for name in module.__all__}
    missing = {name for name in names if id(resolve(name)) not in shown}
    assert missing == {"wbcclf.cli.main"}  # the command wbcclf, which `wbcclf --help` describes


def test_every_name_in_the_api_pages_is_public():
    assert len(API) == len({*API})
    listed = {f"{each.__name__}.{name}" for each in public_modules() for name in each.__all__}
    assert {*API} - listed == {"wbcclf.exceptions"}  # a module, described as a whole


def test_the_pinned_requirements_name_no_address():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 30
    pattern = r'[A-Za-z0-9._-]+(\[[a-z]+\])?==[0-9][A-Za-z0-9.+-]*( ; sys_platform == "linux")?'
    assert [line for line in pins if not re.fullmatch(pattern, line)] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built documentation."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'wbcclf[docs]'")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", site]
    subprocess.run(command, cwd=ROOT, check=True)
    return site


def test_the_site_loads_nothing_from_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        tags = re.findall(r"<(?!a\b)[a-z]+\s[^>]*?\b(?:src|href|srcset)=[^>]*>", page.read_text())
        assert [tag for tag in tags if re.search(r"""=["']?(?:https?:)?//""", tag)] == [], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", text), sheet


@pytest.fixture(scope="module")
def api_pages(site):
    """Return the HTML of every API page by its name."""
    return {path.parent.name: path.read_text() for path in site.glob("api/*/index.html")}


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_the_api_pages_show_no_markup_of_docstrings(api_pages):
    assert len(api_pages) >= 8
    for name, page in api_pages.items():
        text = text_of(re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL))
        assert not re.findall(r".*(?::[a-z]+:[`\w]|`).*", text), name


def test_docstrings_link_to_each_other(api_pages):
    # A class, a function on another page, and a method.
    classifiers = api_pages["classifiers"]
    for target in (
        "#wbcclf.CNNClassifier",
        "../persistence/#wbcclf.save_model",
        "#wbcclf.CNNClassifier.fit",
    ):
        assert re.search(f'href="{target}"><code>', classifiers), target
    assert "torch.compile" in text_of(classifiers)


CLASSES = {
    name: cls
    for name in API
    if inspect.isclass(cls := resolve(name))
    and inspect.signature(cls).parameters
    and not issubclass(cls, Bunch)  # results, which functions make
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_shows_the_signature_of_its_constructor(name, api_pages):
    assert len(CLASSES) > 40
    _, heading, rest = "".join(api_pages.values()).partition(f'<h2 id="{name}" ')
    assert heading
    block = re.search(r'<div class="doc-signature[^>]*>(.*?)</div>', rest, flags=re.DOTALL)[1]
    shown = ast.parse(f"def {text_of(block).strip()}: pass").body[0]
    assert shown.name == CLASSES[name].__name__
    expected = inspect.signature(CLASSES[name]).parameters
    arguments = [*shown.args.posonlyargs, *shown.args.args, *shown.args.kwonlyargs]
    assert [argument.arg for argument in arguments] == list(expected)
    defaults = [*shown.args.defaults, *(value for value in shown.args.kw_defaults if value)]
    optional = [each for each in expected.values() if each.default is not each.empty]
    for parameter, default in zip(optional, defaults, strict=True):
        if not isinstance(default, (ast.Name, ast.Call)):  # the name of a constant, a factory
            assert ast.literal_eval(default) == parameter.default, parameter


def test_the_choices_of_a_parameter_leave_its_default(api_pages):
    parameters = text_of(api_pages["classifiers"])
    for name, default in (("optimizer", '"adamw"'), ("lr_schedule", '"onecycle"')):
        shown = re.search(
            rf"^\s*{name}\s+\(.*?default:\s*(\S+)", parameters, re.MULTILINE | re.DOTALL
        )
        assert shown[1] == default
