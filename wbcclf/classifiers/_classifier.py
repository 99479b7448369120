"""CNNClassifier: a scikit-learn classifier around a chain, a head and a skorch net."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import (
    HasMethods,
    Interval,
    StrOptions,
    _check_sample_weight,
    _fit_context,
    check_value_range,
    validate_images,
    value_range,
)
from wbcclf._resampled import sources_of
from wbcclf.classifiers._head import Head
from wbcclf.classifiers._labels import encode_labels, total_weight
from wbcclf.classifiers._split import validation_split


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """Convolutional network classifier for image batches.

    A backbone (a chain of blocks) with a head on top, trained by gradient descent on the
    cross-entropy. The first blocks of the chain can be frozen: they then stay exactly as they
    were, BatchNorm statistics included.

    Parameters
    ----------
    backbone : str, default="simple_cnn"
        Name of a backbone; :func:`wbcclf.backbones.list_backbones` lists them.
    weights : str, path or None, default=None
        ``"imagenet"`` (downloaded once, SHA-256 checked), the path of a ``.pth``, ``.pt`` or
        ``.npz`` file with the original network's keys, or None for a random initialisation.
    unfrozen_layers : int, str or "all", default="all"
        How many blocks of the chain to train, counted from the top down; or the name of the lowest
        block to train; or all. The head is always trained.
    head : Head or None, default=None
        Pooling and hidden layers; None is ``Head()``: average pooling and one linear layer.
    dropout : float in [0, 1), default=0.2
        Dropout before every linear layer of the head.
    input_size : int, (height, width) or None, default=None
        Size in pixels that the network sees; images of another size are resized on the device.
        None keeps the images' own size, enlarged where the backbone needs more pixels.
    image_shape : (height, width, channels) or None, default=None
        The shape that 2-D input (rows) stands for; None infers it:
        ``3 * s * s`` features are an RGB image, ``s * s`` a grey one, others a strip. Ignored for
        image batches.
    max_epochs : int, default=20
    batch_size : int, default=32
        Images per step, in training and prediction.
    optimizer : {"adam", "adamw", "sgd", "rmsprop"} or torch optimizer class, default="adamw"
        ``"sgd"`` has Nesterov momentum 0.9.
    lr : float, default=1e-3
        Learning rate, the highest one of a schedule.
    weight_decay : float, default=0.0
    lr_schedule : {"constant", "cosine", "onecycle", "plateau"}, default="constant"
        Cosine decay to 0; one-cycle (Smith 2018, https://arxiv.org/abs/1803.09820); or 0.3 times
        whenever the validation loss (without validation images, the training loss) has not
        improved for 3 epochs.
    class_weight : "balanced", dict (label to weight) or None, default=None
        As in scikit-learn; computed on the rows that are trained on.
    early_stopping : bool, default=False
        Stop when the validation loss has not improved for `patience` epochs, and keep the weights
        of the best epoch. Without `X_val`, a share of the *original* images is split off; copies
        and synthetics of them (see :class:`~wbcclf.Augmenter`, :class:`~wbcclf.SMOTE`) are then
        not trained on. Wrap imbalanced-learn's own samplers in :class:`~wbcclf.ImageSampler`:
        by themselves they do not tell which rows are new. Several pictures of one cell count as
        several originals: pass `X_val` of other cells if there are such.
    validation_fraction : float in (0, 1), default=0.1
        Share of each class's original images in that split.
    patience : int, default=5
    augment : Augmenter or None, default=None
        Changes every training batch anew, on the fly.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``"auto"`` takes the first GPU there is.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the network (automatic mixed precision). bfloat16 is faster on recent CPUs
        and GPUs; float32 predicts the same on every device to rounding.
    callbacks : list or None, default=None
        Further skorch callbacks.
    random_state : int, RandomState instance or None, default=None
        Initial weights, validation split, shuffling, augmentation and dropout. The same seed on the
        same machine with the same number of threads gives bit-identical results on the CPU.
    verbose : int, default=0
        1 shows a progress bar with the time left.
    warm_start : bool, default=False
        True goes on from the network of the last `fit` instead of starting anew.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    net_ : skorch.NeuralNetClassifier
        The trained net; ``net_.module_.backbone`` is the chain.
    history_ : list of dict
        One per epoch: ``epoch``, ``train_loss``, ``dur`` (seconds), and with validation images
        ``valid_loss`` and ``valid_acc``.
    n_iter_ : int
        Epochs trained.
    image_shape_ : tuple (height, width, channels)
        Shape of the training images.
    value_range_ : tuple (low, high)
        Scale of the training images' values: (0, 255) for uint8.
    train_indices_, validation_indices_ : ndarray of int
        Rows of the `X` given to `fit` that were trained on, and that were split off to validate.
    n_features_in_ : int
        ``height * width * channels``.
    feature_names_in_ : ndarray of str
        Only after fitting on a data frame.

    Raises
    ------
    ValueError
        For input of the wrong shape, channels, value range or labels; the message says what to do.
    wbcclf.exceptions.OutOfMemoryError
        When the device has too little memory for a training batch.

    See Also
    --------
    SimpleCNNClassifier : A small network trained from scratch.
    VGG16Classifier, ResNet18Classifier : Pretrained networks.

    Examples
    --------
    >>> from wbcclf import CNNClassifier, make_blood_cells
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = CNNClassifier(max_epochs=3, device="cpu", random_state=0)
    >>> clf.fit(cells.images, cells.target).predict_proba(cells.images).shape
    (60, 2)
    """

    _parameter_constraints: dict = {
        "backbone": [str],
        "weights": [str, HasMethods("__fspath__"), None],
        "unfrozen_layers": [Interval(Integral, 0, None, closed="left"), str],
        "head": [Head, None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "input_size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
        "image_shape": [tuple, list, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions({"adam", "adamw", "sgd", "rmsprop"}), callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions({"constant", "cosine", "onecycle", "plateau"})],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "augment": [HasMethods("augment"), None],
        "device": [str],
        "precision": [StrOptions({"float32", "bfloat16"})],
        "callbacks": [list, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        backbone="simple_cnn",
        *,
        weights=None,
        unfrozen_layers="all",
        head=None,
        dropout=0.2,
        input_size=None,
        image_shape=None,
        max_epochs=20,
        batch_size=32,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        lr_schedule="constant",
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        patience=5,
        augment=None,
        device="auto",
        precision="float32",
        callbacks=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.backbone = backbone
        self.weights = weights
        self.unfrozen_layers = unfrozen_layers
        self.head = head
        self.dropout = dropout
        self.input_size = input_size
        self.image_shape = image_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.augment = augment
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Image batch (uint8, 0-255, RGB or grey) or rows.
        y : array-like of shape (n_samples,)
            Labels: strings or integers.
        sample_weight : array-like of shape (n_samples,) or None
            Not negative; a weight of 0 is the same as leaving the image out.
        X_val, y_val : array-likes or None
            Images and labels to validate on after every epoch instead of a split of `X`.

        Returns
        -------
        self
        """
        warm = self.warm_start and hasattr(self, "net_")
        return self._fit(X, y, sample_weight, X_val, y_val, go_on=warm, epochs=self.max_epochs)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one more epoch on `X`, going on from what there is.

        Parameters
        ----------
        X, y, sample_weight : array-likes
            As in :meth:`fit`.
        classes : array-like or None
            All labels there will ever be; needed in the first call unless `y` holds them all.

        Returns
        -------
        self
        """
        go_on = hasattr(self, "net_")
        return self._fit(
            X, y, sample_weight, None, None, go_on=go_on, epochs=1, classes=classes, partial=True
        )

    def _fit(
        self, X, y, sample_weight, X_val, y_val, *, go_on, epochs, classes=None, partial=False
    ):
        # torch is imported when it is needed, so that `import wbcclf` stays light.
        from wbcclf.classifiers import _callbacks, _net, _network

        image_shape = self.image_shape_ if go_on else self.image_shape
        given_y = y
        images, y = validate_images(self, X, y, image_shape=image_shape, reset=not go_on)
        check_classification_targets(y)
        weight = _check_sample_weight(
            sample_weight, images, dtype=np.float64, ensure_non_negative=True
        )
        used = np.flatnonzero(weight)  # a weight of zero is as good as no image
        if not len(used):
            raise ValueError("sample_weight is zero for every sample: there is nothing to fit.")
        random_state = check_random_state(self.random_state)
        seed = random_state.randint(np.iinfo(np.int32).max)
        if go_on:
            check_value_range(images, self.value_range_)
        else:
            self._learn_data(images, used, y[used] if classes is None else classes)
        target = encode_labels(y, self.classes_, used, "y")

        if X_val is not None or y_val is not None:
            train, validation = used, used[:0]
            valid_data = self._validation_data(X_val, y_val)
        elif self.early_stopping and not partial:
            sources = sources_of(X, len(images), given_y)
            train, validation = validation_split(
                y, used, sources, self.validation_fraction, random_state
            )
            valid_data = _net.ImageData(images, target, rows=validation)
        else:
            train, validation, valid_data = used, used[:0], None
        weight = total_weight(weight, self.class_weight, y, train)
        train = train[weight[train] > 0]  # class_weight may be zero, too
        if not len(train):
            raise ValueError("class_weight is zero for every image: there is nothing to fit.")
        self.train_indices_, self.validation_indices_ = train, validation
        train_data = _net.ImageData(images, target, weight, train)

        # A net of `fit` has its own number of epochs, schedule and early stopping.
        if not (partial and go_on and self.net_.incremental and hasattr(self.net_, "optimizer_")):
            build = _network.build_network
            network = self.net_.module_ if go_on else build(self, self.weights, seed)
            network.freeze(_network.count_frozen_blocks(self, network.backbone))
            n_steps = epochs * len(_net.Batches(train_data, self.batch_size))
            callbacks = _callbacks.make_callbacks(
                self, n_steps, validates=valid_data is not None, schedules=not partial
            )
            device = _net.resolve_device(self.device, fitted=False)
            self.net_ = _net.make_net(self, network, callbacks, epochs, random_state, device)
            self.net_.incremental = partial
        for figures in _net.train(self.net_, train_data, valid_data):
            self.history_.append(figures | {"epoch": len(self.history_) + 1})
        self.n_iter_ = len(self.history_)
        return self

    def _learn_data(self, images, used, labels):
        """Set what a first fit learns from the data before any training."""
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class only, {self.classes_.tolist()[0]!r}: a classifier needs "
                "images of at least two."
            )
        self.image_shape_ = images.shape[1:]
        self.value_range_ = value_range(images[used] if len(used) < len(images) else images)
        self.history_ = []

    def _validation_data(self, X_val, y_val):
        from wbcclf.classifiers import _net

        if y_val is None:
            raise ValueError("X_val was given without y_val.")
        if X_val is None:
            raise ValueError("y_val was given without X_val.")
        images = self._check_images(X_val)
        y_val = np.asarray(y_val)
        if y_val.shape != (len(images),):
            raise ValueError(f"X_val has {len(images)} images, y_val the shape {y_val.shape}.")
        return _net.ImageData(images, encode_labels(y_val, self.classes_, slice(None), "y_val"))

    def _restore_net(self, state):
        """Set ``net_`` from a network's state dict, after all other fitted attributes."""
        from wbcclf.classifiers import _net, _network

        network = _network.build_network(self, None, seed=0)
        network.load_state_dict(state)
        random_state = check_random_state(0)
        self.net_ = _net.make_net(self, network, None, self.max_epochs, random_state, "cpu")

    def _check_images(self, X):
        images = validate_images(self, X, image_shape=self.image_shape_, reset=False)
        check_value_range(images, self.value_range_)
        return images

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def predict_proba(self, X):
        """Return class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)
            Images of the size and value range of the training images.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            Columns in the order of ``classes_``; rows sum to 1.
        """
        from wbcclf.classifiers import _net

        check_is_fitted(self)
        images = self._check_images(X)
        device = _net.resolve_device(self.device, fitted=True)
        if device != self.net_.device:
            self.net_.move_to(device)
        logits = self.net_.predict_logits(images, self.batch_size).astype(np.float64)
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (likelihood / likelihood.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict(self, X):
        """Return the most probable label of each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        winners = self.predict_proba(X).argmax(axis=1)
        return self.classes_[winners]
