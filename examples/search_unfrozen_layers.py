"""Search how many blocks of a pretrained network to train.

Run: python examples/search_unfrozen_layers.py [WEIGHTS]

WEIGHTS is a .pth or .npz file for SqueezeNet 1.1 or 'imagenet' (downloaded once). Without it the
network starts at random, three epochs teach it next to nothing, and all candidates are near chance
(0.33 for three classes): then the search tells nothing.
"""

import sys
import warnings

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from wbcclf import CNNClassifier, make_blood_cells

weights = sys.argv[1] if len(sys.argv) > 1 else None
if weights is None:
    warnings.filterwarnings("ignore", message=".*frozen at random weights")

cells = make_blood_cells(90, classes=3, image_size=64, random_state=0)
search = GridSearchCV(
    CNNClassifier("squeezenet1_1", weights=weights, max_epochs=3, lr=1e-3, random_state=0),
    {"unfrozen_layers": [0, 1, "fire5", "all"]},
    cv=StratifiedKFold(2),
)
search.fit(cells.images, cells.target)
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"unfrozen_layers={params['unfrozen_layers']!r:8} accuracy {score:.2f}")

plt.figure(figsize=(5, 3), layout="constrained")
names = [str(params["unfrozen_layers"]) for params in search.cv_results_["params"]]
plt.bar(names, search.cv_results_["mean_test_score"])
plt.gca().set(xlabel="unfrozen_layers", ylabel="accuracy", ylim=(0, 1))
plt.savefig("search_unfrozen_layers.png")
