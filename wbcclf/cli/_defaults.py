"""What `wbcclf train` does where nothing else is asked for; a recipe has defaults of its own."""

from __future__ import annotations

from typing import Any

BACKBONE = "simple_cnn"
IMAGE_SIZE = 96
AUGMENT = True
LR = 3e-3
LR_WITH_WEIGHTS = 3e-4  # pretrained features are easily unlearnt
SEED = 0
# Parameters of the classifier.
CLASSIFIER: dict[str, Any] = {"max_epochs": 10, "batch_size": 32, "weight_decay": 0.05}
