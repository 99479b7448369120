"""Checks of models, before any work."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted


def check_classifier(model: Any, name: str) -> None:
    """Fail unless `model` is a fitted classifier.

    Raises
    ------
    TypeError
        If it is none; the message names the parameter.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    if isinstance(model, type) or not hasattr(model, "fit"):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"{name} must be a fitted classifier, got {got}. "
            "wbcclf.load_model(path) reads one from a model file."
        )
    check_is_fitted(model)
    if not hasattr(model, "classes_"):
        raise TypeError(
            f"{name} must be a fitted classifier, but {type(model).__name__} has no classes. A "
            "search keeps a model only with refit=True; a pipeline must end in a classifier."
        )
