"""How parameters are declared: what they may be, and what they belong to.

``_parameter_constraints`` stands above ``__init__`` and is scikit-learn's. A plain list is a
parameter of the model: what it predicts depends on it. :class:`Training` and :class:`Machine` mark
the others. Model files, checkpoints and the keys of kept fits read these marks.
"""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, make_constraint


class Training(list):
    """Constraints of a parameter that only training depends on."""


class Machine(list):
    """Constraints of a parameter that belongs to a machine: where and how to compute."""


# scikit-learn takes no constraints but its own kinds: HasMethods is the plainest of them.


class Each(HasMethods):
    """A tuple or list of values that all meet a constraint.

    Parameters
    ----------
    item : constraint
    """

    def __init__(self, item: Any) -> None:
        super().__init__("__iter__")
        self.item = make_constraint(item)

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether all items meet the constraint."""
        return isinstance(val, (tuple, list)) and all(map(self.item.is_satisfied_by, val))

    def __str__(self) -> str:
        return f"a tuple or list of which each item is {self.item}"


class EachValue(HasMethods):
    """A dict of which all values meet a constraint.

    Parameters
    ----------
    item : constraint
    """

    def __init__(self, item: Any) -> None:
        super().__init__("values")
        self.item = make_constraint(item)

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether all values meet the constraint."""
        return isinstance(val, dict) and all(map(self.item.is_satisfied_by, val.values()))

    def __str__(self) -> str:
        return f"a dict of which each value is {self.item}"


def belongs_to(cls: type[BaseEstimator], name: str, kind: type[Training] | type[Machine]) -> bool:
    """Return whether a class declares that a parameter belongs to training or to the machine."""
    return isinstance(cls._parameter_constraints.get(name), kind)


class Option(BaseEstimator):
    """What a parameter with options of its own holds: parameters and nothing else.

    A search sets them by their names: ``clf__loss__gamma``.
    """

    def validate(self) -> Any:
        """Check the parameters, as `fit` of the estimator does that holds it; return itself."""
        self._validate_params()
        return self
