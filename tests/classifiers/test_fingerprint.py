"""Digests: equal things have equal ones in any process, and no change goes unnoticed."""

import copy
import dataclasses
import enum
import functools
import importlib
import subprocess
import sys
import threading
import types
import typing
from collections import defaultdict

import cloudpickle
import numpy as np
import pytest
import torch
from torch import fx, nn

from wbcclf import Augmenter, CNNClassifier, Head
from wbcclf.classifiers.caching._fingerprint import Fingerprint, setting
from wbcclf.classifiers.caching._packages import package_digest


def digest(*values):
    return Fingerprint(*values).hexdigest()


def run(code, **names):
    """Return a module whose code has no file, as that of a notebook's cells."""
    module = types.ModuleType("__main__")
    vars(module).update(names)
    exec(code, vars(module))
    return module


def conv():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(4, 4, 3)


class Block(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.conv = conv()
        vars(self).update(attributes)

    def forward(self, x):
        return self.conv(x)


class Scale:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


@dataclasses.dataclass(slots=True)
class Slots:
    width: int = 8


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Relu(Block):
    def forward(self, x):
        return torch.relu(self.conv(x))


class Sine(Block):
    def forward(self, x):
        return torch.sin(self.conv(x))


def changed(array):
    array = array.copy()
    array.flat[2500] += 1  # where repr() has "..."
    return array


def with_hook(by):
    block = Block()
    block.register_forward_hook(lambda module, inputs, output: output * by)
    return block


def scaled(by):
    return lambda x: x * by


def tied(n_uses):
    layer, relu = conv(), nn.ReLU()
    return nn.Sequential(layer, relu, *[relu] * n_uses)


def shares_weights(is_shared):
    layer = conv()
    return nn.Sequential(layer, layer if is_shared else copy.deepcopy(layer))


def with_gradient_hook():
    block = Block()
    block.conv.weight.register_hook(lambda gradient: gradient * 0)
    return block


def parametrized(block):
    block.conv.__class__ = type("Own", (nn.Conv2d,), {"forward": block.forward.__func__})
    nn.utils.parametrizations.weight_norm(block.conv)
    return block


class Wrapper:
    def __init__(self, function, by):
        functools.update_wrapper(self, function)
        self.by = by


class OwnList(list):
    def total(self):
        return sum(self)


class Named(typing.NamedTuple):
    width: int = 8


LONG = np.zeros(5000)
HOLDS_ITSELF = [1]
HOLDS_ITSELF.append(HOLDS_ITSELF)

DIFFERENT = {
    "numbers": (1, 1.0),
    "bool": (1, True),
    "text": ("1", 1),
    "nested": ([[1], 2], [[1, 2]]),
    "joined texts": (["a", "bc"], ["ab", "c"]),
    "array": (LONG, changed(LONG)),
    "dtype": (LONG, LONG.astype(np.float32)),
    "shape": (LONG, LONG.reshape(2, -1)),
    "tensor": (torch.zeros(5000), torch.from_numpy(changed(LONG)).float()),
    "tensor's layout": (
        torch.ones(2, 3, 4, 4),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ),
    "records": (np.zeros(2, [("a", int)]), np.zeros(2, [("b", int)])),
    "objects": (np.array([1, None]), np.array([1, "None"], dtype=object)),
    "dict": ({"a": 1}, {"a": 2}),
    "set": ({"a", "b"}, {"a", "c"}),
    "object": (Scale(1), Scale(2)),
    "slots": (Slots(1), Slots(2)),
    "enum": (Kind.ONE, Kind.TWO),
    "partial": (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "random state": (np.random.RandomState(0), np.random.RandomState(1)),
    "estimator": (Augmenter(rotation=10), Augmenter(rotation=20)),
    "class": (Relu, Sine),
    "closure": (scaled(1), scaled(2)),
    "lambda": (lambda x: x + 1, lambda x: x + 2),
    "default": (lambda x, by=1: x * by, lambda x, by=2: x * by),
    "code of a block": (Relu(), Sine()),
    "private attribute": (Block(_gain=1), Block(_gain=2)),
    "callable attribute": (Block(act=Scale(1)), Block(act=Scale(2))),
    "network in a list": (Block(acts=[nn.LeakyReLU(0.1)]), Block(acts=[nn.LeakyReLU(0.2)])),
    "forward of its own": (Block(), Block(forward=scaled(2))),
    "hook": (with_hook(1), with_hook(2)),
    "one more hook": (Block(), with_hook(1)),
    "layer used twice": (tied(0), tied(1)),
    "shared weights": (shares_weights(True), shares_weights(False)),
    "graph": (fx.symbolic_trace(Relu()), fx.symbolic_trace(Sine())),
    "buffer": (nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)),
    "gradient hook": (Block(), with_gradient_hook()),
    "parametrized": (parametrized(Relu()), parametrized(Sine())),
    "recurrent": (nn.LSTM(2, 3), nn.LSTM(2, 3, bidirectional=True)),
    "wrapper": (Wrapper(scaled, 1), Wrapper(scaled, 2)),
    "class of a list": ([1], OwnList([1])),
    "class of a tuple": ((8,), Named()),
    "default of a dict": (defaultdict(int, a=1), defaultdict(list, a=1)),
    "mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    "decorated": (torch.no_grad()(scaled(1)), torch.no_grad()(scaled(2))),
    "cached": (functools.cache(scaled(1)), functools.cache(scaled(2))),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_has_another_digest(one, other):
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


# Pickle refuses some of them; of a graph and a masked array it makes others.
WITHOUT_COPY = ("graph", "cached", "parametrized", "mask")


def test_equal_values_have_equal_digests():
    for value, equal in [
        (np.float32(0.5), 0.5),
        (np.arange(6.0)[::-2], np.array([5.0, 3.0, 1.0])),
        (np.asfortranarray(np.eye(3)), np.eye(3)),
        (torch.ones(1, 1, 1, 3).permute(0, 3, 1, 2), torch.ones(1, 3, 1, 1)),
        ((1, 2), [1, 2]),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        (HOLDS_ITSELF, copy.deepcopy(HOLDS_ITSELF)),
    ]:
        assert digest(value) == digest(equal)


@pytest.mark.parametrize(
    "value",
    [pair[0] for name, pair in DIFFERENT.items() if name not in WITHOUT_COPY],
    ids=[name for name in DIFFERENT if name not in WITHOUT_COPY],
)
def test_a_copy_has_the_same_digest(value):
    assert digest(cloudpickle.loads(cloudpickle.dumps(value))) == digest(value)


CELL = """
import torch
from torch import nn
class Net(nn.Module):
    names = {"some", "texts", "in", "a", "set"}
    def __init__(self):
        super().__init__()
        self.width = 3
    @property
    def twice(self):
        return 2 * self.width
    @staticmethod
    def wave(x):
        return FUNCTION(x) if x in {"more", "texts"} else GAIN * x
    def forward(self, x):
        return self.wave(x) + self.twice
GAIN = 2
"""


def test_processes_agree_on_code_without_a_file():
    """As joblib's do, which get classes of a script or a notebook by value."""
    code = CELL.replace("FUNCTION", "torch.sin")
    payload = cloudpickle.dumps(run(code).Net())
    script = (
        "import sys; import cloudpickle\n"
        "from wbcclf.classifiers.caching._fingerprint import Fingerprint\n"
        f"print(Fingerprint(cloudpickle.loads({payload!r})).hexdigest())"
    )
    for seed in "12":  # of the hashes of texts, and so of the order of sets
        result = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == digest(run(code).Net())


def test_a_cell_that_is_run_again_with_other_code_has_another_digest():
    sine = CELL.replace("FUNCTION", "torch.sin")
    first = digest(run(sine).Net())
    assert digest(run("\n\n" + sine).Net()) == first  # lines do not matter
    for old, new in [
        ("FUNCTION", "torch.cos"),
        ("GAIN = 2", "GAIN = 3"),
        ("2 * self", "3 * self"),
        ('"some"', '"other"'),
    ]:
        code = CELL.replace(old, new).replace("FUNCTION", "torch.sin")
        assert digest(run(code).Net()) != first


IMPORTS = {
    "import": ("import {0}_ops\n", "return {0}_ops.act(x)"),
    "from": ("from {0}_ops import act\n", "return act(x)"),
    "inside": ("", "import {0}_ops; return {0}_ops.act(x)"),
    "from, inside": ("", "from {0}_ops import act; return act(x)"),
    "as": ("import {0}_ops as ops\n", "return ops.act(x)"),
}


@pytest.mark.parametrize(("head", "body"), IMPORTS.values(), ids=IMPORTS)
def test_what_a_function_calls_in_another_file_counts(head, body, tmp_path, monkeypatch, request):
    """As the interpreter holds it, whatever the file says by now."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "wbcclf_" + request.node.callspec.id.replace(", ", "_")
    code = f"{head}def forward(x):\n    {body}\n".format(name)
    digests = []
    for act in ("x + 1", "x + 2"):
        (tmp_path / f"{name}_ops.py").write_text(f"def act(x):\n    return {act}  # long: {act}\n")
        sys.modules.pop(f"{name}_ops", None)
        __import__(f"{name}_ops")
        digests.append(digest(run(code).forward))
        (tmp_path / f"{name}_ops.py").write_text("def act(x):\n    return None\n")
        assert digest(run(code).forward) == digests[-1]
    assert digests[0] != digests[1]


def test_modules_of_a_package_that_call_each_other_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for act in ("x + 1", "x + 2"):
        package = tmp_path / "wbcclf_own"
        for name, code in {
            "__init__": "",
            "ops": f"def act(x):\n    return {act}\n",
            "layers": "import wbcclf_own.ops\ndef layer(x):\n    return wbcclf_own.ops.act(x)\n",
            "deep.__init__": "",
            "deep.late": "def layer(x):\n    from ..ops import act\n    return act(x)\n",
        }.items():
            path = package / f"{name.replace('.__', '/__').replace('.', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(code + f"# {act}\n")
        for name in [name for name in sys.modules if name.startswith("wbcclf_own")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        head = "import wbcclf_own.layers\nimport wbcclf_own.deep.late\n"
        calls = ["wbcclf_own.layers.layer(x)", "wbcclf_own.deep.late.layer(x)"]
        makers = [f"{head}def f(x):\n    return {call}\n" for call in calls]
        held = run(f"{head}from functools import partial\nf = partial(print, wbcclf_own.layers)")
        digests.append([digest(run(code).f) for code in makers] + [digest(held.f)])
    assert all(one != other for one, other in zip(*digests, strict=True))


def test_a_method_that_replaces_one_of_a_package_counts(monkeypatch):
    before = digest(conv())
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: x)
    assert digest(conv()) != before


def test_a_package_counts_the_same_before_it_is_imported(monkeypatch):
    code = "def draw(self):\n    import colorsys\n    return colorsys\n"
    importlib.import_module("colorsys")
    there = digest(run(code).draw)
    monkeypatch.delitem(sys.modules, "colorsys")
    assert digest(run(code).draw) == there


def test_functions_that_call_each_other_end():
    code = (
        "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n and even(n - 1)"
    )
    assert digest(run(code).even) == digest(run(code).even)
    assert digest(run(code).even) != digest(run(code.replace("n - 1)\ndef", "n - 3)\ndef")).even)


def test_a_name_that_functools_gave_is_not_believed():
    def wrapped(momentum):
        @functools.wraps(torch.optim.SGD)
        def make(params, **options):
            return torch.optim.SGD(params, momentum=momentum, **options)

        return make

    assert digest(wrapped(0.1)) != digest(wrapped(0.2))


def test_code_of_packages_is_told_by_their_files():
    assert package_digest("torch") != package_digest("torchvision")
    assert package_digest("wbcclf") is not None
    assert package_digest("json") is not None
    assert package_digest("__main__") is None
    assert package_digest(__name__.partition(".")[0]) is None


class Refusing:
    def __reduce_ex__(self, protocol):
        raise ValueError("not me")


UNTOLD = {
    "lock": (Block(lock=threading.Lock()), r"a lock \(.*lock\)"),
    "sparse": (Block(weight=torch.eye(3).to_sparse()), r"a Tensor \(.*weight\)"),
    "refusing": ({"it": Refusing()}, r"a Refusing \(it\)"),
    "deep": ({"it": functools.reduce(lambda inner, _: [inner], range(5000), [])}, "it is nested"),
}


@pytest.mark.parametrize(("value", "message"), UNTOLD.values(), ids=UNTOLD)
def test_what_cannot_be_told_is_an_error(value, message):
    with pytest.raises(TypeError, match=f"{message}.* from another"):
        digest(value)


def test_settings_are_told_without_code():
    sine, cosine = (run(CELL.replace("FUNCTION", f"torch.{name}")).Net for name in ("sin", "cos"))
    assert setting(sine) == setting(cosine)
    assert setting(Head(hidden=(3,))) != setting(Head(hidden=(4,)))
    assert setting(np.float64(1e-3)) == setting(1e-3)
    assert setting(threading.Lock()) == setting(threading.Lock()) != setting(threading.Event())
    fitted = CNNClassifier()
    fitted.n_iter_ = 3  # what was learnt is no setting
    assert setting(fitted) == setting(CNNClassifier())
