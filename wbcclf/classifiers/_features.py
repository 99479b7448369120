"""DeepFeatures: a pretrained network as a scikit-learn transformer, images to feature vectors."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import (
    StrOptions,
    _fit_context,
    check_value_range,
    validate_images,
    value_range,
)
from wbcclf.classifiers._classifier import CNNClassifier
from wbcclf.exceptions import WeightsMismatchError

_SHARED = (
    "backbone",
    "weights",
    "input_size",
    "image_shape",
    "batch_size",
    "device",
    "precision",
    "random_state",
)


class DeepFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of images, computed by a backbone that is not trained here.

    Anything that works on vectors can follow: a linear model, an SVM, k-means, or SMOTE in feature
    space (measured in ``benchmarks/smote_feature_space.py``). A block in the middle can give better
    features than the last one (also measured there).

    Parameters
    ----------
    backbone : str or ConvNet, default="resnet18"
        As in :class:`CNNClassifier`.
    weights : str, path or None, default="default"
        As in :class:`CNNClassifier`: the network's own, a tag of the backbone, a weights file, or
        the file of a model that was trained on other cells. None: random weights.
    layer : str or None, default=None
        The block that the features are taken after; :func:`wbcclf.backbones.describe` lists the
        names. None is the last one.
    pooling : {"avg", "max", "flatten", "token"}, default="avg"
        How feature maps (or a vision transformer's tokens) become one vector: their mean or maximum
        over the image, all their values, or a transformer's class token.
    input_size, image_shape : default=None
        As in :class:`CNNClassifier`.
    batch_size : int, default=32
        Images per step, >= 1; it is halved while the device has too little memory.
    device : str, default="auto"
        As in :class:`CNNClassifier`.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        As in :class:`CNNClassifier`; the features are float32 in either case.
    random_state : int, RandomState instance or None, default=None
        Seed of the random weights if `weights` is None.

    Attributes
    ----------
    network_ : torch.nn.Module
        Preprocessing, the chain up to `layer`, and the pooling, on the CPU.
    weights_report_ : wbcclf.backbones.WeightsReport or None
        What was loaded from `weights`.
    image_shape_ : tuple (height, width, channels)
        Shape of the images that `fit` saw.
    value_range_ : tuple (low, high)
        Scale of their values: (0, 255) for uint8.
    n_features_in_ : int
        ``height * width * channels``.
    feature_names_in_ : ndarray of str
        Only after fitting on a data frame.

    Raises
    ------
    ValueError
        For input of the wrong shape, channels or value range, an unknown `layer`, or a `pooling`
        that does not go with the backbone.
    wbcclf.exceptions.WeightsNotFoundError, wbcclf.exceptions.WeightsMismatchError
        If the weights are not available, do not fit, or lack a tensor of the chain.
    wbcclf.exceptions.OutOfMemoryError
        When the device has too little memory for a single image.

    See Also
    --------
    CNNClassifier : Trains the backbone, too.

    Examples
    --------
    With random weights, so that nothing is downloaded:

    >>> from imblearn.over_sampling import SMOTE
    >>> from imblearn.pipeline import make_pipeline
    >>> from sklearn.linear_model import LogisticRegression
    >>> from wbcclf import DeepFeatures, make_blood_cells
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> features = DeepFeatures("simple_cnn", weights=None, random_state=0)
    >>> features.fit_transform(cells.images).shape
    (60, 256)
    >>> pipe = make_pipeline(features, SMOTE(random_state=0), LogisticRegression(max_iter=1000))
    >>> pipe.fit(cells.images, cells.target).score(cells.images, cells.target) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **{name: CNNClassifier._parameter_constraints[name] for name in _SHARED},
        "layer": [str, None],
        "pooling": [StrOptions({"avg", "max", "flatten", "token"})],
    }

    def __init__(
        self,
        backbone="resnet18",
        *,
        weights="default",
        layer=None,
        pooling="avg",
        input_size=None,
        image_shape=None,
        batch_size=32,
        device="auto",
        precision="float32",
        random_state=None,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.input_size = input_size
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the images' shape and value range, and load the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch (uint8, 0-255, RGB or grey) or rows.
        y : None
            Ignored.

        Returns
        -------
        self
        """
        # torch is imported when it is needed, so that `import wbcclf` stays light.
        from torch import nn

        from wbcclf.backbones import get_backbone
        from wbcclf.backbones._chain import build_chain, feature_shape
        from wbcclf.classifiers.network._building import input_size_of
        from wbcclf.classifiers.network._device import seeded
        from wbcclf.classifiers.network._layers import make_pooling
        from wbcclf.classifiers.network._preprocessing import Preprocessing

        images = validate_images(self, X, image_shape=self.image_shape)
        self.image_shape_ = images.shape[1:]
        self.value_range_ = value_range(images)
        spec = get_backbone(self.backbone)
        size = input_size_of(spec, self.input_size, self.image_shape_)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        with seeded(seed):
            weights = spec.default_weights if self.weights == "default" else self.weights
            chain, self.weights_report_ = build_chain(spec, weights)
            chain = self._up_to_layer(chain)
            pooling, self._n_features_out = make_pooling(self.pooling, feature_shape(chain, *size))
        preprocessing = Preprocessing(spec, self.value_range_, size)
        self.network_ = nn.Sequential(preprocessing, chain, pooling).eval().requires_grad_(False)
        return self

    def _up_to_layer(self, chain):
        """Return the blocks that are used, all of whose weights must be there."""
        names = [name for name, _ in chain.named_children()]
        if self.layer is not None:
            if self.layer not in names:
                raise ValueError(
                    f"layer={self.layer!r} is not a block of this backbone; from the bottom up "
                    f"they are {', '.join(names)}."
                )
            names = names[: names.index(self.layer) + 1]
        report = self.weights_report_
        if report is None:
            return chain[: len(names)]
        missing = [key for key in report.missing if key.partition(".")[0] in names]
        if missing:
            raise WeightsMismatchError(
                f"{report.source} lacks {len(missing)} tensors of the blocks in use "
                f"({', '.join(missing[:3])}, ...), which would stay random. Give a file that holds "
                "them, or a lower layer."
            )
        return chain[: len(names)]

    def transform(self, X):
        """Return the features of images.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the shape and value range that `fit` saw.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out), float32
        """
        import torch

        from wbcclf.backbones import get_backbone
        from wbcclf.classifiers.network._device import arithmetic, resolve_device, resolve_precision
        from wbcclf.classifiers.network._running import run_in_batches

        check_is_fitted(self)
        images = validate_images(self, X, image_shape=self.image_shape_, reset=False)
        check_value_range(images, self.value_range_)
        device = resolve_device(self.device, fitted=True)
        precision = resolve_precision(self.precision, device, get_backbone(self.backbone).name)
        # A copy: the transformer itself stays as it is, and its pickle on the CPU.
        network = self.network_ if device == "cpu" else copy.deepcopy(self.network_).to(device)

        def run(batch):
            with torch.inference_mode(), arithmetic(device, precision):
                return network(batch.to(device)).float()

        return run_in_batches(run, images, self.batch_size, device)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
