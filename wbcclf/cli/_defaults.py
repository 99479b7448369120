"""Defaults of `wbcclf train` (a recipe has its own), and what is known of the packaged model."""

from __future__ import annotations

import math

BACKBONE = "compact_cnn"  # from its own weights: docs/other-laboratories.md
IMAGE_SIZE = 96
CROP = "cell"  # the best mean over three data sets: docs/cells.md
# The weights of the package were trained on such squares; other laboratories: see there.
CROP_WITH_PACKAGED_WEIGHTS, PACKAGED_WEIGHTS = "nucleus", "blood-cells"
AUGMENT = "full"  # at this length the best mean over three data sets: docs/training.md
LR = 3e-3
LR_WITH_WEIGHTS = 3e-4  # pretrained features are easily unlearnt
SEED = 0
# A training has so many steps, three minutes or so on 2 CPU cores, or so many passes over the
# images if that is longer: ten passes over a few hundred images teach a network little. With
# weights there is less to learn, and every step of such networks takes longer.
STEPS, EPOCHS = 3000, 10
STEPS_WITH_WEIGHTS, EPOCHS_WITH_WEIGHTS = 600, 2
BATCH_SIZE = 32
WEIGHT_DECAY = 0.05
# Classes of the model that comes with the package which are of no white cells.
NOT_WHITE = ["erythroblast", "platelet"]
# What is printed with the results of the model that comes with the package. Figures of
# benchmarks/pretrain.py score.
LIMITS = (
    "It was trained on pictures of PBC, BCCD and BCISC. It is right for 0.977 of 1,365 cells of "
    "PBC that it was not trained on, and for 0.892 of 1,145 cells of a laboratory that it has "
    "never seen (Raabin, by which its design was chosen: expect less on yours). Test it on "
    "labelled cells of your own: wbcclf evaluate wbcclf:blood-cells DIR. With ten labelled cells "
    "of each class, wbcclf adapt may make it fit them. For research, not for diagnosis."
)


def default_steps(n_images: int, batch_size: int, is_random: bool) -> int:
    """Return the steps of a training, which copies that --balance adds do not change."""
    steps, epochs = STEPS_WITH_WEIGHTS, EPOCHS_WITH_WEIGHTS
    if is_random:
        steps, epochs = STEPS, EPOCHS
    return max(steps, epochs * math.ceil(n_images / batch_size))
