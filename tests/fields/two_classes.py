"""Fields of pale and dark cells, and a classifier that tells them apart."""

import numpy as np
from preprocessing.fields import Field
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline

PALE, DARK = (0.1, 0.2, 0.1), (0.3, 0.65, 0.3)  # cytoplasm of the two classes
SIZE = 24


class ByCytoplasm(ClassifierMixin, BaseEstimator):
    """Tell pale cells from dark ones, by the light beside their nucleus."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.image_shape_ = X.shape[1:]
        light = self.light(X)
        self.means_ = [light[np.array(y) == label].mean() for label in self.classes_]
        return self

    def light(self, X):
        assert X.shape[1:] == self.image_shape_ and X.dtype == np.uint8
        self.seen = X
        middle, off = SIZE // 2, 5 * SIZE // 24
        rows, columns = [middle, middle, middle - off, middle + off], [middle - off, middle + off]
        return X[:, rows, [*columns, middle, middle]].mean(axis=(1, 2))

    def predict_proba(self, X):
        nearer_dark = (self.means_[1] - self.light(X)) / (self.means_[1] - self.means_[0])
        dark = np.clip(nearer_dark, 0.02, 0.98)
        return np.stack([dark, 1 - dark], axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def draw(cells, height=320, width=400, seed=0):
    """Return a field with a cell at every (x, y, cytoplasm)."""
    field = Field(height, width, seed)
    field.red_cells(keep_off=[(x, y, 38) for x, y, _ in cells])
    for x, y, cytoplasm in cells:
        field.white_cell(x, y, cytoplasm=cytoplasm)
    return field.picture()


def fit(step):
    """Return a pipeline that has seen single cells, cut or whole."""
    pictures = np.array(
        [draw([(95, 95, colour)], 190, 190, seed) for seed in range(2) for colour in (DARK, PALE)]
    )
    return make_pipeline(step, ByCytoplasm()).fit(pictures, ["dark", "pale"] * 2)
