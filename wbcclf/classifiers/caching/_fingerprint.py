"""A digest of data, settings and networks: equal things have equal ones, in any process.

Pickled bytes would not do. They name code without holding it, and equal values have several.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import os
import sys
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import resolve_name
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import fx, nn

from wbcclf.classifiers.caching._packages import package_digest, package_of

# Told by their text alone, as far as they are of these very types.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
# Members of classes that were written in C.
_COMPILED = (
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType),
    *(types.MethodDescriptorType, types.ClassMethodDescriptorType, types.MethodWrapperType),
)
# What every network has: its tensors and networks are told on their own, and its mode is said by
# what is frozen.
_TORCH_OWN = {*vars(nn.Module()), "_compiled_call_impl"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Fingerprint:
    """A digest of values and, if they are code or run it, of that code.

    Code of an installed package is identified by the package's files. Code of the user's own, of a
    script, a notebook or a package that is still worked on, is followed through all that it calls,
    as the interpreter holds it: its file may have changed since.

    Parameters
    ----------
    *values
        Anything: numbers, texts, containers, arrays, tensors, networks, functions, classes,
        objects that pickle could take apart.
    with_code : bool, default=True
        If False, functions and classes are identified by their names alone.

    Raises
    ------
    TypeError
        For what cannot be told from another of its kind, like a lock or an open file.
    """

    def __init__(self, *values: Any, with_code: bool = True) -> None:
        self._digest = hashlib.sha256()
        self._with_code = with_code
        # Code, networks and tensors in order of their appearance. One that appears twice is shared,
        # which matters where it is trained, and two that call each other end here.
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # a number is an object's for as long as it lives
        self._within: set[int] = set()  # what is being added, for things that hold themselves
        self._followed: set[tuple[int, str]] = set()  # names of the user's own modules
        self._trail: list[str] = []  # where in the values we are, for the message
        self.add(*values)

    def add(self, *values: Any) -> None:
        """Go on with more values."""
        try:
            for value in values:
                self._add(value)
        except RecursionError as error:
            place = self._trail[0] if self._trail else "a value"
            raise TypeError(f"{place} is nested too deeply to be told from another") from error

    def hexdigest(self) -> str:
        """Return the digest of all that was added, 40 characters."""
        return self._digest.hexdigest()[:40]

    def _say(self, kind: str, text: str) -> None:
        self._digest.update(f"{kind}:{len(text)}:{text};".encode(errors="surrogatepass"))

    def _add_named(self, kind: str, values: Mapping[Any, Any]) -> None:
        self._say(kind, str(len(values)))
        for name, value in values.items():
            self._trail.append(str(name))
            self._add(name)
            self._add(value)
            self._trail.pop()

    def _add(self, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item() if value.dtype.kind in "biufcSU" else np.asarray(value)
        if type(value) in _PLAIN:
            self._say(type(value).__name__, repr(value))
        elif isinstance(value, np.dtype):
            self._say("dtype", f"{value.descr} {value}")
        elif isinstance(value, os.PathLike):
            self._say("str", repr(os.fspath(value)))
        elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            self._add_array(np.asarray(value))
        elif isinstance(value, torch.Tensor):
            if self._is_new(value):
                self._add_tensor(value)
        elif isinstance(value, nn.Module):
            if self._is_new(value):
                self._add_network(value)
        elif isinstance(value, types.ModuleType):
            self._add_module(value, ())
        elif isinstance(value, types.CodeType):
            self._add_bytecode(value)
        elif isinstance(value, types.MethodType):
            self._say("method", value.__name__)
            self._add([value.__func__, value.__self__])
        elif isinstance(value, types.FunctionType):
            if self._is_new(value):
                self._add_function(value)
        elif isinstance(value, type):
            if self._is_new(value):
                self._add_class(value)
        elif id(value) in self._within:
            self._say("within", type(value).__qualname__)
        else:
            with self._inside(value):
                self._add_object(value)

    @contextmanager
    def _inside(self, value: Any) -> Iterator[None]:
        self._within.add(id(value))
        yield
        self._within.remove(id(value))

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._numbers:
            self._say("again", str(self._numbers[id(value)]))
            return False
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        return True

    def _add_array(self, array: np.ndarray) -> None:
        self._say("array", f"{array.dtype.descr} {array.shape}")
        if array.dtype.hasobject:
            self._add(array.tolist())
        elif array.dtype.kind in "biufc":
            self._digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        else:  # texts, dates and records have no memory that hashlib takes
            self._digest.update(array.tobytes())

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        try:
            # Libraries compute in another order in another layout. Not the strides themselves,
            # which mean nothing on axes of length one.
            is_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
            layout = f"{tensor.is_contiguous()} {is_last}"
            self._say("tensor", f"{tensor.dtype} {tuple(tensor.shape)} {layout}")
            x = tensor.detach().resolve_conj().resolve_neg().cpu()
            x = (x.permute(0, 2, 3, 1) if is_last else x).contiguous()
            self._digest.update(x.flatten().view(torch.uint8).numpy().data)
        except RuntimeError as error:  # a sparse or quantized one
            raise self._untold(tensor) from error
        for hooks in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks):
            self._add([*(hooks or {}).values()])

    def _add_network(self, network: nn.Module) -> None:
        self._add(type(network))
        attributes = sorted(vars(network).items())  # a copy may have them in another order
        own = {name: value for name, value in attributes if name not in _TORCH_OWN}
        if isinstance(network, fx.GraphModule):
            # Its attributes are the nodes of the graph, which its code, its tensors and the
            # globals of its generated function tell.
            self._say("graph", network.code)
            own = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
            own["forward"] = type(network).forward
        self._add_named("attributes", own)
        self._add_named("hooks", {name: [*getattr(network, name).values()] for name in _HOOKS})
        self._add_named("parameters", network._parameters)
        self._add_named("buffers", network._buffers)
        self._add_named("networks", network._modules)

    def _add_function(self, function: types.FunctionType) -> None:
        self._say("function", function.__qualname__)
        # Where it was written: functools.wraps has given it the name of another.
        package = package_of(function.__globals__.get("__name__", ""))
        if not self._with_code or package is not None:
            self._say("package", f"{function.__module__} {package if self._with_code else ''}")
        else:
            self._add(function.__code__)
            self._add_globals(function)
        # A package's decorator holds the user's function in its closure.
        self._add([function.__defaults__, function.__kwdefaults__, vars(function)])
        for cell in function.__closure__ or ():
            try:
                self._add(cell.cell_contents)
            except ValueError:  # not set yet
                self._say("cell", "empty")

    def _add_bytecode(self, code: types.CodeType) -> None:
        # Without line numbers and the file's name, which mean nothing.
        self._digest.update(code.co_code + code.co_exceptiontable)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._say("code", f"{names} {code.co_argcount} {code.co_kwonlyargcount} {code.co_flags}")
        self._add(code.co_consts)

    def _add_globals(self, function: types.FunctionType) -> None:
        """Add what the names in a function stand for outside of it."""
        read, imported, names = _names(function.__code__)
        home = function.__globals__.get("__package__") or ""
        values = {name: function.__globals__.get(name) for name in sorted(read)}
        for name in sorted(imported):
            try:
                module = resolve_name(name, home)
            except ImportError:  # relative, but in no package
                continue
            # Of a package not the module, which one process may have imported and another not.
            values[name] = package_of(module) or sys.modules.get(module)
        for name, value in values.items():
            self._trail.append(name)
            self._say("global", name)
            if isinstance(value, types.ModuleType):
                self._add_module(value, sorted(names))
            else:
                self._add(value)
            self._trail.pop()

    def _add_module(self, module: types.ModuleType, names: list[str] | tuple) -> None:
        """Add a module's package or, if it is the user's own, what some names are in it.

        All of it where nobody says which.
        """
        package = package_of(module.__name__)
        self._say("module", f"{module.__name__} {package if self._with_code else ''}")
        if package is not None or not self._with_code:
            return
        if not names or "getattr" in names:
            names = [name for name in sorted(vars(module)) if not name.startswith("__")]
        for name in names:
            if (id(module), name) not in self._followed and name in vars(module):
                self._followed.add((id(module), name))
                value = vars(module)[name]
                if isinstance(value, types.ModuleType):
                    self._add_module(value, names)
                else:
                    self._add_named("member", {name: value})

    def _add_class(self, cls: type) -> None:
        self._say("class", f"{cls.__module__}.{cls.__qualname__}")
        if not self._with_code:
            return
        self._add(cls.__bases__)
        if type(cls) is not type:
            self._add(type(cls))
        members = sorted(vars(cls).items())  # a class copied to another process has another order
        package = package_of(cls.__module__)
        # Packages also make classes of the user's: torch those with a parametrization.
        if package is not None and _is_found(cls):
            self._say("package", package)
            members = [(name, value) for name, value in members if _is_patched(value)]
        for name, value in members:
            if isinstance(value, (staticmethod, classmethod)):
                self._say("kind", type(value).__name__)
                value = value.__func__
            elif isinstance(value, property):
                value = [value.fget, value.fset, value.fdel]
            elif isinstance(value, cached_property):
                value = value.func
            elif not isinstance(value, types.FunctionType) and (
                name == "_abc_impl" or (name.startswith("__") and name.endswith("__"))
            ):
                continue  # what Python notes about the class
            self._add_named("member", {name: value})

    def _add_object(self, value: Any) -> None:
        if type(value) in (list, tuple):
            self._say("sequence", str(len(value)))
            for item in value:
                self._add(item)
        elif type(value) in (dict, OrderedDict, types.MappingProxyType):
            self._add_named("mapping", value)
        elif type(value) in (set, frozenset):
            items = [Fingerprint(item, with_code=self._with_code) for item in value]
            self._add(["set", *sorted(item.hexdigest() for item in items)])
        elif isinstance(value, BaseEstimator):
            own = vars(value) if self._with_code else value.get_params(deep=False)
            self._add(type(value))
            self._add_named("estimator", dict(sorted(own.items())))
        elif isinstance(value, types.BuiltinFunctionType):
            self._say("builtin", f"{value.__module__}.{value.__qualname__}")
            if not isinstance(value.__self__, types.ModuleType):
                self._add(value.__self__)
        elif isinstance(value, functools._lru_cache_wrapper):  # pickle would give its name
            self._say("cache", "")
            self._add(value.__wrapped__)
        elif isinstance(value, _COMPILED):
            self._say("compiled", value.__qualname__)
        elif isinstance(value, weakref.ref):  # somebody else holds it
            self._say("weakref", "")
        else:
            self._add_parts(value)

    def _add_parts(self, value: Any) -> None:
        """Add what pickle would make the object of again."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            parts = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:  # whatever a class may say of being pickled
            raise self._untold(value) from error
        self._say("object", f"{type(value).__module__}.{type(value).__qualname__}")
        if isinstance(parts, str):  # the name of something global
            self._say("name", parts)
            return
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        self._add([make, arguments, state, [*(items or ())], [*(pairs or ())]])

    def _untold(self, value: Any) -> TypeError:
        place = f" ({'.'.join(self._trail)})" if self._trail else ""
        return TypeError(f"a {type(value).__qualname__}{place} cannot be told from another")


def setting(value: Any) -> str:
    """Return what tells the value of a parameter from others, in another process too.

    Without code, of which another version of Python makes another one. What cannot be told is the
    same as all of its class.
    """
    try:
        return Fingerprint(value, with_code=False).hexdigest()
    except TypeError:
        return f"{type(value).__module__}.{type(value).__qualname__}"


def arithmetic_used(device: str, precision: str) -> list:
    """Return what results depend on but network and data: whose arithmetic, and which."""
    return [
        *(package_digest("wbcclf"), torch.__version__, torch.device(device).type, precision),
        *(torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
    ]


def _names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Return what a function and those inside it read of globals, import, and all their names."""
    read, imported, names = set(), set(), set(code.co_names)
    instructions = list(dis.get_instructions(code))
    for number, instruction in enumerate(instructions):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":  # after how many levels up, and what of it
            imported.add("." * instructions[number - 2].argval + instruction.argval)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            inner = _names(const)
            read, imported, names = read | inner[0], imported | inner[1], names | inner[2]
    return read, imported, names


def _is_found(cls: type) -> bool:
    """Return whether a class is what its module has under its name."""
    found = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


def _is_patched(member: Any) -> bool:
    """Return whether a member of a package's class is a function of the user's own."""
    function = getattr(member, "__func__", member)
    return (
        isinstance(function, types.FunctionType)
        and package_of(function.__globals__.get("__name__", "")) is None
    )
