"""What the API pages show of docstrings and signatures: an extension of griffe, which reads them.

griffe reads the source without running it, and passes docstrings on as Markdown.
"""

import inspect
import re
from typing import Any

import griffe

ROLE = re.compile(r":[a-z]+:`~?([\w.]+)`")
CHOICES = re.compile(r"^([\w, ]+ : )\{(.+?)\}", re.MULTILINE)
NAMED = "wbcclf.classifiers._named"


class ApiPages(griffe.Extension):
    """Links in place of Sphinx's roles, and signatures that are made at run time."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn ``:class:`SMOTE``` into a link, and choices into words."""
        if obj.docstring is None:
            return
        text = ROLE.sub(lambda match: _link(obj, match[1]), obj.docstring.value)
        # Of choices in braces griffe takes the first for the default, whatever the docstring says.
        obj.docstring.value = CHOICES.sub(r"\1\2", text)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Give the named classifiers the signature that their decorator makes."""
        if cls.module.path == NAMED:
            made = inspect.signature(griffe.dynamic_import(cls.path).__init__)
            parameters = [
                griffe.Parameter(
                    name,
                    kind=griffe.ParameterKind(parameter.kind.description),
                    default=None
                    if parameter.default is parameter.empty
                    else repr(parameter.default),
                )
                for name, parameter in made.parameters.items()
            ]
            init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
            cls.set_member("__init__", init)


def _link(obj: griffe.Object, name: str) -> str:
    try:
        target = obj.resolve(name)
    except griffe.NameResolutionError:
        target = name if "." in name else f"wbcclf.{name}"
    # Optional: what is not on these pages (torch.compile) stays plain.
    return f'<autoref identifier="{target}" optional>`{name.removeprefix("wbcclf.")}`</autoref>'
