"""CNNClassifier: a scikit-learn classifier around a chain, a head and a skorch net."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
    check_value_range,
    validate_images,
)
from wbcclf._parameters import Each, EachValue, Machine, Training
from wbcclf._store import MEMORY_CONSTRAINT
from wbcclf.backbones import Head
from wbcclf.backbones._registry import A_BACKBONE
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.familiarity._description import NO_DESCRIPTION, Description
from wbcclf.classifiers.familiarity._seen import image_digests
from wbcclf.classifiers.options import (
    Averaging,
    EarlyStopping,
    GradualUnfreezing,
    Mixing,
    Optimizer,
)
from wbcclf.classifiers.options._settings import (
    LOSSES,
    METHODS,
    MIXING,
    SCHEDULES,
    Settings,
)

_POSITIVE_INT = Interval(Integral, 1, None, closed="left")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_SHARE = Interval(Real, 0, 1, closed="left")


class _Backbone(HasMethods):
    """What `backbone` may be; the error says how a torch module becomes one."""

    def __init__(self) -> None:
        super().__init__("spec")

    def is_satisfied_by(self, val: Any) -> bool:
        return isinstance(val, str) or super().is_satisfied_by(val)

    def __str__(self) -> str:
        return A_BACKBONE


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """Convolutional network classifier for image batches.

    A backbone (a chain of blocks) with a head on top, trained by gradient descent. The lower blocks
    of the chain can be frozen: they then stay exactly as they were, BatchNorm statistics included.

    Parameters
    ----------
    backbone : str or ConvNet, default="simple_cnn"
        Name of a backbone: :func:`wbcclf.backbones.list_backbones` lists them, and
        :func:`wbcclf.backbones.describe` shows one. Or a :class:`ConvNet` that you define.
    weights : str, path or None, default="default"
        ``"default"``: the network's own, which are ImageNet's if it has them, else the first that
        it lists, else random. ``"imagenet"`` or another tag of the backbone: downloaded once,
        SHA-256 checked. A path: a ``.pth``, ``.pt``, ``.safetensors`` or ``.npz`` file with the
        original network's keys, or a model file of :func:`wbcclf.save_model` with the same
        backbone. None: random initialisation. ``weights_report_`` lists what was loaded.
    unfrozen_layers : int, str, "all" or GradualUnfreezing, default="all"
        How many blocks of the chain to train, counted from the top (>= 0); or the name of the
        lowest block to train; or all. The head is always trained. :class:`GradualUnfreezing` begins
        with the head alone.
    head : Head or None, default=None
        Pooling, hidden layers and dropout. None is the network's own head: the one in its
        :class:`BackboneSpec`, by default average pooling, dropout of 0.2 and one linear layer.
    input_size : int, (height, width) or None, default=None
        Size in pixels that the network sees. Images of another size are resized on the device. None
        keeps the size of the images, and enlarges them if the backbone needs more pixels.
    image_shape : (height, width, channels) or None, default=None
        Shape of one image if the input is 2-D (rows). None infers it: ``3 * s * s`` features are an
        RGB image, ``s * s`` a grey one, any other number a strip. Ignored for image batches.
    test_time_augmentation : bool, default=False
        Predict the mean over the eight flips and quarter turns of each image (four for images that
        are not square), which takes eight times as long.
    rejection : float or None, default=None
        The share of calls that may be wrong, in (0, 1). Where a label is too likely to be wrong,
        `predict` gives ``"uncertain"`` instead, or -1 if labels are numbers; so it does for images
        that look like none of the training images. The bound holds with a confidence of 95% for
        images like the validation images, which it needs: give `fit` `X_val` and `y_val`, or use
        `early_stopping`. Scores count what is uncertain as wrong.

        **How long to train, and how fast**
    max_epochs : int, default=20
        Passes over the training images, >= 1. A sampler before the classifier adds images, so every
        pass and the whole training take longer. Samplers do not change the budget `max_steps`.
    max_steps : int or None, default=None
        Number of optimizer steps (batches) to train for, >= 1, instead of `max_epochs` passes. An
        epoch is still one pass over the training images; the last one is cut short. Schedules span
        all steps. Compare remedies for rare classes at equal steps. :meth:`partial_fit` ignores it.
    batch_size : int, default=32
        Images per step, in training and prediction, >= 1.
    lr : float or None, default=None
        Learning rate, > 0; the highest one of a schedule. None is the network's own, in its
        :class:`BackboneSpec`: 3e-4 for the networks of torchvision and timm, by default 1e-3.
    lr_schedule : str or a schedule, default="onecycle"
        How the learning rate changes: ``"constant"``, ``"cosine"``, ``"onecycle"``,
        ``"plateau"``, ``"step"``, ``"decay"``; or :class:`Constant`, :class:`Cosine`,
        :class:`OneCycle`, :class:`Plateau`, :class:`StepDecay`, :class:`InverseTimeDecay` with
        options.
    optimizer : str, torch optimizer class or Optimizer, default="adamw"
        ``"adam"``, ``"adamw"``, ``"sgd"`` (Nesterov momentum 0.9), ``"rmsprop"``; or
        :class:`Optimizer`, with weight decay, layer-wise learning rates and gradient clipping.
    averaging : bool, float or Averaging, default=False
        Validate and predict with an exponential moving average of the trained weights. A number in
        [0, 1) is its decay.

        **What to minimise, on which images**
    loss : {"cross_entropy", "focal"}, CrossEntropy or FocalLoss, default="cross_entropy"
        The objects have options: label smoothing, penalties on weights, gamma of the focal loss.
    class_weight : "balanced", dict (label to weight) or None, default=None
        As in scikit-learn; ``"balanced"`` is computed on the training rows.
    balanced_batches : bool, default=False
        Draw training images so that every class appears equally often. An epoch has as many images
        as before; images of rare classes appear several times.
    augment : Augmenter or None, default=None
        Augments every training batch on the fly, differently in each epoch.
    mixing : {"mixup", "cutmix"}, Mixing or None, default=None
        Blend every training batch with a shuffled copy of itself.

        **When to stop, and how to resume a killed training**
    early_stopping : bool or EarlyStopping, default=False
        Stop when the validation loss no longer improves, and keep the weights of the best epoch.
        Without `X_val`, a share of the *original* images is held out. Copies and synthetics of them
        (see :class:`~wbcclf.Augmenter`, :class:`~wbcclf.SMOTE`), and images that equal them byte
        for byte, are then not trained on. Wrap imbalanced-learn's own samplers in
        :class:`~wbcclf.ImageSampler`: alone, they do not record which rows are new, and only exact
        repetitions are found. Several pictures of one cell count as several originals: if you have
        such pictures, pass `X_val` with other cells.
    calibrate : bool, default=False
        Divide the logits by a temperature after training, so that probabilities say how often they
        are right [1]_. It is the one with the least log loss on the validation images, 50 or more:
        give `fit` `X_val` and `y_val`, or use `early_stopping`. Labels stay the same, as does the
        order of an image's probabilities; with `test_time_augmentation` they may change where views
        disagree. It holds for `test_time_augmentation` as it was in `fit`, and for images like the
        validation images. :meth:`partial_fit` ignores it.
    checkpoint_dir : path or None, default=None
        Folder to which `fit` saves its state after every epoch. If it is killed, call the same
        `fit` again (same parameters, images and labels): it resumes there and ends with the model
        of an uninterrupted `fit`, bit-identical on the CPU if `random_state` is an int. None as
        `random_state` is an error. The file is removed when `fit` ends. Fits of a search may share
        the folder. The state of `callbacks` is not saved.

        **Where and how to compute**
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``"auto"`` is the first GPU, if any.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        Arithmetic of the network (automatic mixed precision). bfloat16 is faster for most networks
        on recent CPUs and GPUs. ``"auto"`` uses it where it is faster. With float32, predictions
        on all devices agree up to rounding.
    compile : bool, default=False
        Compile the network with :func:`torch.compile` first, which takes about a minute. On a CPU
        it needs a C++ compiler. Useful for long trainings on a GPU.
    cache_gb : float, default=2.0
        Memory in gigabytes (10**9 bytes), >= 0, for the activations of the frozen blocks. They are
        computed once instead of once per epoch, unless `augment` or `mixing` changes the images. If
        they need more, they go to a memory-mapped file in the folder `memory`, or else in the
        system's folder for temporary files. 0 computes them in every epoch, even with `memory`.
    memory : None, str, path, joblib.Memory or Cache, default=None
        Folder that keeps the activations of frozen blocks for other folds, candidates of a search
        and runs. It also keeps whole trainings: one whose inputs are all the same is not repeated.
        This needs an int as `random_state`, no `callbacks`, and an optimizer, augmenter and head of
        torch or this package. Entries are found by the bytes of images and weights, and by the
        versions of the packages and of the backbone; your own must declare one
        (:class:`BackboneSpec`). Any number of processes may share the folder; all of them must be
        able to write to it. It holds at most 20 GB; :class:`~wbcclf.Cache` sets another limit.
    verbose : int, default=0
        1 shows a progress bar with the time left, and in a notebook with matplotlib a curve of the
        losses, which is drawn anew while the training goes on.

        **scikit-learn and skorch**
    callbacks : list or None, default=None
        Further skorch callbacks. A batch holds ``"images"``, or ``"activations"`` if these are
        cached (`cache_gb`). Callbacks must not change frozen blocks: give other weights as
        `weights`.
    random_state : int, RandomState instance or None, default=None
        Initial weights, validation split, shuffling, augmentation and dropout. The same seed on the
        same machine with the same number of threads gives bit-identical results on the CPU.
    warm_start : bool, default=False
        True continues with the network of the last `fit` instead of a new one. With early
        stopping, give `X_val` then: a new split may validate on images of the earlier training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    net_ : skorch.NeuralNetClassifier
        The trained net; ``net_.module_.backbone`` is the chain.
    history_ : list of dict
        One per epoch: ``epoch``, ``steps``, ``train_loss``, ``dur`` (seconds). With validation
        images also ``valid_loss`` and ``valid_acc``. From `fit` also ``gain``: the relative
        reduction of the training loss, without penalties, against a baseline that always predicts
        the class frequencies. 0 is no better than the baseline, 1 is a loss of zero.
    n_iter_ : int
        Epochs trained. The last one counts even if `max_steps` cut it short.
    n_steps_ : int
        Steps of the optimizer in these epochs.
    image_shape_ : tuple (height, width, channels)
        Shape of the training images.
    value_range_ : tuple (low, high)
        Scale of the training images' values: (0, 255) for uint8.
    weights_report_ : wbcclf.backbones.WeightsReport or None
        The tensors that were loaded from `weights`, those missing in it, and those not used.
    temperature_ : float
        What the logits were divided by, > 0. Only with `calibrate`.
    train_indices_, validation_indices_ : ndarray of int
        Rows of the `X` given to `fit` that were trained on, and that were split off to validate.
    n_features_in_ : int
        ``height * width * channels``.
    feature_names_in_ : ndarray of str
        Only after fitting on a data frame.

    Raises
    ------
    ValueError
        For input of the wrong shape, channels, value range or labels, or a parameter out of its
        range; the message says what to do.
    wbcclf.exceptions.WeightsNotFoundError, wbcclf.exceptions.WeightsMismatchError
        If the weights are not available, do not fit, or lack a tensor of a frozen block.
    FloatingPointError
        When the loss or the weights become infinite or NaN.
    wbcclf.exceptions.OutOfMemoryError
        When the device has too little memory for a training batch.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        When `fit` has taken 50 steps or more and learnt nothing: the gain of the last epoch (with
        early stopping, of the best one) is below 0.01.
    wbcclf.exceptions.UnfamiliarImagesWarning
        When 20 images or more are predicted that do not look like the training images: their mean
        :meth:`familiarity` is below 0.1.

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", 2017,
       https://arxiv.org/abs/1706.04599

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

    backbone: Any  # an attribute of the class where that is named after it
    # Of the training images. Models of older versions have neither, those of partial_fit no
    # description.
    _description: Description | None = None
    _trained_on: np.ndarray | None = None

    _parameter_constraints: dict = {
        "backbone": [_Backbone()],
        "weights": Training([str, HasMethods("__fspath__"), None]),
        "unfrozen_layers": [Interval(Integral, 0, None, closed="left"), str, GradualUnfreezing],
        "head": [Head, None],
        "input_size": [_POSITIVE_INT, Each(_POSITIVE_INT), None],
        "image_shape": Training([Each(_POSITIVE_INT), None]),
        "test_time_augmentation": ["boolean"],
        "rejection": [Interval(Real, 0, 1, closed="neither"), None],
        "max_epochs": Training([_POSITIVE_INT]),
        "max_steps": Training([_POSITIVE_INT, None]),
        "batch_size": [_POSITIVE_INT],
        "lr": Training([_POSITIVE, None]),
        "lr_schedule": Training([StrOptions({*SCHEDULES}), *SCHEDULES.values()]),
        "optimizer": Training([StrOptions(METHODS), callable, Optimizer]),
        "averaging": Training(["boolean", _SHARE, Averaging]),
        "loss": Training([StrOptions({*LOSSES}), *LOSSES.values()]),
        "class_weight": Training([StrOptions({"balanced"}), EachValue(_NOT_NEGATIVE), None]),
        "balanced_batches": Training(["boolean"]),
        "augment": Training([HasMethods("augment"), None]),
        "mixing": Training([StrOptions({*MIXING}), Mixing, None]),
        "early_stopping": Training(["boolean", EarlyStopping]),
        "calibrate": Training(["boolean"]),
        "checkpoint_dir": Machine([str, HasMethods("__fspath__"), None]),
        "device": Machine([str]),
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": Machine(["boolean"]),
        "cache_gb": Machine([_NOT_NEGATIVE]),
        "memory": Machine(MEMORY_CONSTRAINT),
        "verbose": Machine(["verbose"]),
        "callbacks": Training([list, tuple, None]),
        "random_state": Training(["random_state"]),
        "warm_start": Training(["boolean"]),
    }

    def __init__(
        self,
        backbone="simple_cnn",
        *,
        weights="default",
        unfrozen_layers="all",
        head=None,
        input_size=None,
        image_shape=None,
        test_time_augmentation=False,
        rejection=None,
        max_epochs=20,
        max_steps=None,
        batch_size=32,
        lr=None,
        lr_schedule="onecycle",
        optimizer="adamw",
        averaging=False,
        loss="cross_entropy",
        class_weight=None,
        balanced_batches=False,
        augment=None,
        mixing=None,
        early_stopping=False,
        calibrate=False,
        checkpoint_dir=None,
        device="auto",
        precision="float32",
        compile=False,
        cache_gb=2.0,
        memory=None,
        verbose=0,
        callbacks=None,
        random_state=None,
        warm_start=False,
    ):
        self.backbone = backbone
        self.weights = weights
        self.unfrozen_layers = unfrozen_layers
        self.head = head
        self.input_size = input_size
        self.image_shape = image_shape
        self.test_time_augmentation = test_time_augmentation
        self.rejection = rejection
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.optimizer = optimizer
        self.averaging = averaging
        self.loss = loss
        self.class_weight = class_weight
        self.balanced_batches = balanced_batches
        self.augment = augment
        self.mixing = mixing
        self.early_stopping = early_stopping
        self.calibrate = calibrate
        self.checkpoint_dir = checkpoint_dir
        self.device = device
        self.precision = precision
        self.compile = compile
        self.cache_gb = cache_gb
        self.memory = memory
        self.verbose = verbose
        self.callbacks = callbacks
        self.random_state = random_state
        self.warm_start = warm_start

    def set_params(self, **params):
        """Set parameters, or options of the objects that they hold: ``loss__gamma=1.0``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a name is none of the classifier's, or an option is given for a parameter that holds
            a plain value.
        """
        for name in params:
            key, nested, _ = name.partition("__")
            held = params.get(key, getattr(self, key, None))
            holders = [
                cls.__name__
                for cls in self._parameter_constraints.get(key, ())
                if isinstance(cls, type) and hasattr(cls, "set_params")
            ]
            if nested and holders and not hasattr(held, "set_params"):
                raise ValueError(
                    f"{name} is an option, but {key}={held!r} is a plain value, which has none. "
                    f"Give an object first: {key}={'() or '.join(holders)}()."
                )
        return super().set_params(**params)

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
            Weights >= 0; a weight of 0 leaves the image out.
        X_val, y_val : array-likes or None
            Images and labels to validate on after every epoch instead of a split of `X`.

        Returns
        -------
        self

        Warns
        -----
        UserWarning
            If images of `X_val` are also in `X`, identical byte for byte, or if images in `X` were
            made from the same originals.
        """
        # torch is imported when it is needed, so that `import wbcclf` stays light.
        from wbcclf.classifiers.training._fit import fit

        return fit(self, X, y, sample_weight, X_val, y_val)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train the network for one more epoch on `X`.

        Parameters
        ----------
        X, y, sample_weight : array-likes
            As in :meth:`fit`.
        classes : array-like or None
            All labels of all calls; needed in the first call unless `y` holds all of them.

        Returns
        -------
        self
        """
        from wbcclf.classifiers.training._fit import partial_fit

        return partial_fit(self, X, y, classes, sample_weight)

    def _restore_net(self, headers, read):
        """Set ``net_`` from the tensors of a file, after all other fitted attributes."""
        from wbcclf.classifiers.network._restoring import check_draft, restore_network
        from wbcclf.classifiers.training._net import untrained_net

        check_draft(self.backbone, headers)
        settings = Settings.of(self)
        network = restore_network(settings, self._domain(), headers, read)
        self.weights_report_ = None
        self.net_ = untrained_net(settings, network, len(self.classes_))

    def _domain(self):
        """Return what `fit` learnt of images and labels before training."""
        return Domain(self.classes_, self.image_shape_, self.value_range_)

    def _check_images(self, X, domain):
        images = validate_images(self, X, image_shape=domain.image_shape, reset=False)
        check_value_range(images, domain.value_range)
        return images

    @property
    def n_steps_(self):
        """Steps of the optimizer in the epochs of ``history_``."""
        try:
            return sum(epoch["steps"] for epoch in self.history_)
        except KeyError:
            raise AttributeError("The version that saved this model did not count steps.") from None

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
        prediction = self._predict(X)
        prediction.warn_of_unfamiliar()
        return prediction.probabilities

    def predict(self, X):
        """Return the most probable label of each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            With `rejection`, ``"uncertain"`` or -1 where no label can be called.

        Raises
        ------
        ValueError
            If the validation images of `fit` were too few for `rejection`, if too many of them were
            wrong, or if labels leave no room for what is uncertain.
        """
        prediction = self._predict(X, self.rejection)
        prediction.warn_of_unfamiliar(self.rejection)
        return prediction.labels(self.classes_)

    def familiarity(self, X):
        """Return how much images are like those that the network was trained on.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), float in [0, 1]
            The share of images from home that look less familiar: 0.5 on the mean for new images
            of the same laboratory, near 0 for another stain, scale or focus, and for what is no
            cell. `fit` compares with validation images if there are 50 or more, else with training
            images. The distance is that of Lee et al. 2018, https://arxiv.org/abs/1807.03888.

        Raises
        ------
        ValueError
            If the model keeps no description of its training images.

        Examples
        --------
        >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
        >>> cells = make_blood_cells(80, classes=2, image_size=32, random_state=0)
        >>> clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
        >>> clf = clf.fit(cells.images, cells.target)
        >>> bool(clf.familiarity(cells.images).mean() > 0.4)
        True
        >>> bool((clf.familiarity(255 - cells.images) < 0.1).mean() > 0.9)
        True
        """
        prediction = self._predict(X)
        if prediction.familiarity is None:
            raise ValueError(NO_DESCRIPTION)
        return prediction.familiarity

    def was_trained_on(self, X):
        """Return which images the network was trained on: scores of these are too good.

        It keeps a digest of every training image, 8 bytes each, in the model file, too: of those
        of `fit` and of :func:`adapt`, and of those that a model file given as `weights` keeps.
        Copies that :class:`Augmenter` and :class:`SMOTE` made are not kept. An image is known again
        if all its values are the same. A changed copy is not: :func:`find_image_groups` finds such.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width, channels) or (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), bool

        Raises
        ------
        ValueError
            If the model keeps no digests, since an older version saved it.

        Examples
        --------
        >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
        >>> cells = make_blood_cells(80, classes=2, image_size=32, random_state=0)
        >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
        >>> clf = clf.fit(cells.images[:60], cells.target[:60])
        >>> int(clf.was_trained_on(cells.images).sum())
        60
        """
        check_is_fitted(self)
        images = self._check_images(X, self._domain())
        if self._trained_on is None:
            raise ValueError(
                "The model does not know which images it was trained on: it was saved by an older "
                "version. Call fit again."
            )
        return np.isin(image_digests(images), self._trained_on)

    def _predict(self, X, rejection=None):
        """Return all that is predicted of images, from one pass of the network.

        Only labels need the rejection: probabilities are there even if its bound cannot be kept.
        """
        from wbcclf.classifiers.training._predict import predict_images

        check_is_fitted(self)
        images = self._check_images(X, self._domain())
        settings = Settings.of(self)
        return predict_images(self.net_, settings, images, self._description, rejection)
