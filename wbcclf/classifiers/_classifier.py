"""CNNClassifier: a scikit-learn classifier around a chain, a head and a skorch net."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import _fit_context, check_value_range, validate_images
from wbcclf.classifiers._parameters import PARAMETER_CONSTRAINTS
from wbcclf.classifiers.options._head import Head


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """Convolutional network classifier for image batches.

    A backbone (a chain of blocks) with a head on top, trained by gradient descent on the
    cross-entropy. The first blocks of the chain can be frozen: they then stay exactly as they
    were, BatchNorm statistics included.

    Parameters
    ----------
    backbone : str or ConvNet, default="simple_cnn"
        Name of a backbone; :func:`wbcclf.backbones.list_backbones` lists them, and
        :func:`wbcclf.backbones.describe` shows one. Or a :class:`ConvNet` that you define.
    weights : str, path or None, default=None
        ``"imagenet"`` or another tag of the backbone (downloaded once, SHA-256 checked); the path
        of a ``.pth``, ``.pt``, ``.safetensors`` or ``.npz`` file with the original network's keys,
        or of a model file of :func:`wbcclf.save_model` with the same backbone; or None for a random
        initialisation. ``weights_report_`` tells what was taken from a file.
    unfrozen_layers : int, str or "all", default="all"
        How many blocks of the chain to train, counted from the top down; or the name of the lowest
        block to train; or all. The head is always trained.
    head : Head or None, default=None
        Pooling and hidden layers. None is the network's usual head: average pooling and one linear
        layer, or what the published scratch network has.
    dropout : float in [0, 1) or sequence of them, default=0.2
        Dropout before every linear layer of the head; a sequence has one value for each of them.
    input_size : int, (height, width) or None, default=None
        Size in pixels that the network sees; images of another size are resized on the device.
        None keeps the images' own size, enlarged where the backbone needs more pixels.
    image_shape : (height, width, channels) or None, default=None
        The shape that 2-D input (rows) stands for; None infers it:
        ``3 * s * s`` features are an RGB image, ``s * s`` a grey one, others a strip. Ignored for
        image batches.
    max_epochs : int, default=20
        Passes over the images given. A sampler before the classifier makes every pass longer, and
        so the training: `max_steps` is a budget that it does not change.
    max_steps : int or None, default=None
        Train for so many steps of the optimizer (batches) instead of `max_epochs` passes. An epoch
        stays a pass over the images given, and the last one is cut short; schedules stretch over
        all steps. Compare remedies for rare classes at equal steps. :meth:`partial_fit` ignores it.
    batch_size : int, default=32
        Images per step, in training and prediction.
    optimizer : {"adam", "adamw", "sgd", "rmsprop"} or torch optimizer class, default="adamw"
        ``"sgd"`` has Nesterov momentum 0.9.
    optimizer_params : dict or None, default=None
        Further arguments of the optimizer, like ``{"betas": (0.9, 0.99)}``.
    lr : float, default=1e-3
        Learning rate, the highest one of a schedule.
    weight_decay : float, default=0.0
        The optimizer's own; it acts on everything that is trained.
    lr_schedule : {"constant", "cosine", "onecycle", "plateau", "step", "decay"}, \
            default="onecycle"
        How the learning rate goes on after the start: stays; falls to 0 along a cosine; one-cycle
        (Smith 2018, https://arxiv.org/abs/1803.09820); is lowered whenever the validation loss
        (without validation images, the training loss) has not improved; is lowered every few
        epochs; or falls as ``lr / (1 + decay * step)``, Keras' `decay`.
    lr_schedule_params : dict or None, default=None
        Arguments of the schedule: ``warmup_epochs`` (0, linear from 0; constant, cosine, step and
        decay), ``factor`` (0.3), ``patience`` (2 epochs) and ``min_lr`` (0) of plateau,
        ``step_size`` (epochs) and ``gamma`` of step, ``decay`` of decay.
    layer_lr_decay : float in (0, 1], default=1.0
        Discriminative learning rates (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146): the
        head learns at the full rate, the k-th block below it at ``layer_lr_decay ** k`` times that.
    gradual_unfreezing : int, default=0
        0 trains all `unfrozen_layers` from the start; a number begins with the head alone and
        unfreezes one block more every so many epochs, from the top down to `unfrozen_layers`.
    loss : {"cross_entropy", "focal"}, default="cross_entropy"
        Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002) looks less at images that
        are right already.
    focal_gamma : float, default=2.0
        How much less; 0 is cross-entropy.
    label_smoothing : float in [0, 1), default=0.0
        Share of every label that is spread over all classes.
    l1, l2 : float or dict of block name to float, default=0.0
        Penalty on the trained kernels, as Keras counts it: so many times the sum of ``|w|`` and of
        ``w ** 2``, without biases and normalisation. A dict penalises the blocks it names
        (``"head"`` is the head).
    class_weight : "balanced", dict (label to weight) or None, default=None
        As in scikit-learn; computed on the rows that are trained on.
    balanced_batches : bool, default=False
        Draw training images so that every class comes equally often; an epoch has as many images
        as before, rare ones several times.
    mixup, cutmix : float, default=0.0
        Blend every training batch with a shuffled one of itself: whole images (Zhang et al. 2017,
        https://arxiv.org/abs/1710.09412) or a pasted rectangle (Yun et al. 2019,
        https://arxiv.org/abs/1905.04899), with shares drawn from Beta(a, a); 0 is off. If both are
        given, a coin is tossed for every batch.
    max_grad_norm : float or None, default=None
        Scale gradients down to this norm.
    ema_decay : float in [0, 1) or None, default=None
        Validate and predict with an exponential moving average of the trained weights: after every
        step, average = ema_decay * average + (1 - ema_decay) * weights. The share of the start is
        taken out of it, so short trainings can use it, too.
    early_stopping : bool, default=False
        Stop when `monitor` has not improved for `patience` epochs, and keep the weights
        of the best epoch. Without `X_val`, a share of the *original* images is split off; copies
        and synthetics of them (see :class:`~wbcclf.Augmenter`, :class:`~wbcclf.SMOTE`) and images
        equal to them byte for byte are then not trained on. Wrap imbalanced-learn's own samplers
        in :class:`~wbcclf.ImageSampler`: by themselves they do not tell which rows are new, and
        only exact repetitions are found. Several pictures of one cell count as
        several originals: pass `X_val` of other cells if there are such.
    validation_fraction : float in (0, 1), default=0.1
        Share of each class's different original images in that split.
    patience : int, default=5
    monitor : {"valid_loss", "valid_acc"}, default="valid_loss"
    min_delta : float, default=0.0
        Smaller improvements than this do not count.
    checkpoint_dir : path or None, default=None
        Folder to write the state of a running `fit` into after every epoch. The same `fit` (same
        parameters, images and labels) that was killed resumes there and ends with the same
        model as one that was not (bit-identical on the CPU, with an int as `random_state`). The
        file is removed when `fit` ends. Fits of a search may share the folder. What `callbacks`
        remember is not kept.
    augment : Augmenter or None, default=None
        Changes every training batch anew, on the fly.
    test_time_augmentation : bool, default=False
        Predict the mean over the eight flips and quarter turns of each image (four for images that
        are not square), which takes eight times as long.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; ``"auto"`` takes the first GPU there is.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        Arithmetic of the network (automatic mixed precision). bfloat16 is up to twice as fast on
        recent CPUs and GPUs, and ``"auto"`` takes it there; float32 predicts the same on every
        device to rounding.
    compile : bool, default=False
        Translate the network with :func:`torch.compile` first, which takes a minute or so (on a CPU
        it needs a C++ compiler). Worth it for long trainings on a GPU.
    cache_gb : float, default=2.0
        Memory in gigabytes for what the frozen blocks make of the images, which is computed once
        instead of once per epoch, if nothing changes the images (`augment`, `mixup`, `cutmix`).
        More is put into a memory-mapped file, in the folder `memory` or else in the system's folder
        for temporary files. 0 computes it in every epoch, whatever `memory` is.
    memory : None, str, path or joblib.Memory, default=None
        Folder to keep what frozen blocks make of images in, for other folds, candidates of a search
        and runs; also whole trainings, which are not repeated where all they depend on is the same
        (with an int as `random_state`, and no callback, optimizer or augmenter that is not torch's
        or this package's). Entries are found by the content of the image, weights, preprocessing,
        precision and the code of the network, of a notebook's or script's own classes, too. Any
        number of processes may share the folder, all of them able to write there.
    memory_gb : float, default=20.0
        Gigabytes that the folder may take; what was used longest ago is removed when something is
        added.
    callbacks : list or None, default=None
        Further skorch callbacks. A batch holds "images", or "activations" where `cache_gb` keeps
        these; frozen blocks are not to be changed after the training has begun.
    random_state : int, RandomState instance or None, default=None
        Initial weights, validation split, shuffling, augmentation and dropout. The same seed on the
        same machine with the same number of threads gives bit-identical results on the CPU.
    verbose : int, default=0
        1 shows a progress bar with the time left.
    warm_start : bool, default=False
        True continues with the network of the last `fit` instead of starting anew. With early
        stopping, give `X_val` then: a new split may validate on images of the earlier training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    net_ : skorch.NeuralNetClassifier
        The trained net; ``net_.module_.backbone`` is the chain.
    history_ : list of dict
        One per epoch: ``epoch``, ``steps``, ``train_loss``, ``dur`` (seconds); with validation
        images ``valid_loss`` and ``valid_acc``; and from `fit` ``gain``: by which share the loss
        on the training images, without penalties, is below that of always answering with the
        classes' shares. 0 is nothing learnt, 1 everything.
    n_iter_ : int
        Epochs trained; the last one counts though `max_steps` cut it short.
    n_steps_ : int
        Steps of the optimizer in these epochs.
    image_shape_ : tuple (height, width, channels)
        Shape of the training images.
    value_range_ : tuple (low, high)
        Scale of the training images' values: (0, 255) for uint8.
    weights_report_ : wbcclf.backbones.WeightsReport or None
        What was loaded from `weights`, what was not there, and what the file had beyond.
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
    FloatingPointError
        When the loss or the weights become infinite or NaN.
    wbcclf.exceptions.OutOfMemoryError
        When the device has too little memory for a training batch.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        When `fit` has taken 50 steps or more and learnt nothing: the last epoch's gain is under
        0.01.

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

    _parameter_constraints: dict = PARAMETER_CONSTRAINTS
    default_head = Head()

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
        max_steps=None,
        batch_size=32,
        optimizer="adamw",
        optimizer_params=None,
        lr=1e-3,
        weight_decay=0.0,
        lr_schedule="onecycle",
        lr_schedule_params=None,
        layer_lr_decay=1.0,
        gradual_unfreezing=0,
        loss="cross_entropy",
        focal_gamma=2.0,
        label_smoothing=0.0,
        l1=0.0,
        l2=0.0,
        class_weight=None,
        balanced_batches=False,
        mixup=0.0,
        cutmix=0.0,
        max_grad_norm=None,
        ema_decay=None,
        early_stopping=False,
        validation_fraction=0.1,
        patience=5,
        monitor="valid_loss",
        min_delta=0.0,
        checkpoint_dir=None,
        augment=None,
        test_time_augmentation=False,
        device="auto",
        precision="float32",
        compile=False,
        cache_gb=2.0,
        memory=None,
        memory_gb=20.0,
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
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.lr_schedule_params = lr_schedule_params
        self.layer_lr_decay = layer_lr_decay
        self.gradual_unfreezing = gradual_unfreezing
        self.loss = loss
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.l1 = l1
        self.l2 = l2
        self.class_weight = class_weight
        self.balanced_batches = balanced_batches
        self.mixup = mixup
        self.cutmix = cutmix
        self.max_grad_norm = max_grad_norm
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.monitor = monitor
        self.min_delta = min_delta
        self.checkpoint_dir = checkpoint_dir
        self.augment = augment
        self.test_time_augmentation = test_time_augmentation
        self.device = device
        self.precision = precision
        self.compile = compile
        self.cache_gb = cache_gb
        self.memory = memory
        self.memory_gb = memory_gb
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

        Warns
        -----
        UserWarning
            If images of `X_val` are in `X`, too, equal to the last byte.
        """
        # torch is imported when it is needed, so that `import wbcclf` stays light.
        from wbcclf.classifiers.training._fit import fit

        return fit(self, X, y, sample_weight, X_val, y_val)

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
        from wbcclf.classifiers.training._fit import fit

        return fit(self, X, y, sample_weight, classes=classes, partial=True)

    def _restore_net(self, headers, read):
        """Set ``net_`` from the tensors of a file, after all other fitted attributes."""
        from wbcclf.classifiers.network import _restoring
        from wbcclf.classifiers.training import _net
        from wbcclf.classifiers.training._schedules import Budget

        network = _restoring.restore_network(self, headers, read)
        self.weights_report_ = None
        random_state = check_random_state(0)
        self.net_ = _net.make_net(self, network, None, Budget(0, 1), random_state, "cpu")

    def _check_images(self, X):
        images = validate_images(self, X, image_shape=self.image_shape_, reset=False)
        check_value_range(images, self.value_range_)
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
        from wbcclf.backbones import get_backbone
        from wbcclf.classifiers.caching import _activations
        from wbcclf.classifiers.network import _device

        check_is_fitted(self)
        images = self._check_images(X)
        device = _device.resolve_device(self.device, fitted=True)
        name = get_backbone(self.backbone).name
        precision = _device.resolve_precision(self.precision, device, name)
        if (device, precision) != (self.net_.device, self.net_.precision):
            self.net_.move_to(device, precision)
        frozen = _activations.frozen_part(self, len(images))
        views = _eight_views(images) if self.test_time_augmentation else [images]
        logits = [self.net_.predict_logits(view, self.batch_size, frozen) for view in views]
        return softmax(np.stack(logits).astype(np.float64), axis=2).mean(axis=0).astype(np.float32)

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


def _eight_views(images):
    """Yield the batch under the symmetries of the square that keep its shape, as views.

    The microscope has no up and down: a cell is as likely to lie one way as another.
    """
    turns = range(4) if images.shape[1] == images.shape[2] else (0, 2)
    for flipped in (images, images[:, :, ::-1]):
        for quarter_turns in turns:
            yield np.rot90(flipped, quarter_turns, axes=(1, 2))
