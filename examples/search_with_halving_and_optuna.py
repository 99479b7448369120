"""The same pipeline in scikit-learn's halving search and in Optuna's.

Run: python examples/search_with_halving_and_optuna.py

Both are given a folder as `memory`: a candidate that one of them has trained on some images is not
trained on them again.
"""

import tempfile
import warnings

import matplotlib.pyplot as plt
import optuna
from imblearn.pipeline import Pipeline
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna_integration import OptunaSearchCV
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV, StratifiedKFold

from wbcclf import Augmenter, Optimizer, SimpleCNNClassifier, make_blood_cells

# What OptunaSearchCV says of itself, and of a part of Optuna that it uses.
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*optuna.terminator", category=FutureWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)

cells = make_blood_cells(120, classes=3, image_size=32, random_state=0)
with tempfile.TemporaryDirectory() as folder:
    classifier = SimpleCNNClassifier(
        max_epochs=3, optimizer=Optimizer(), memory=folder, random_state=0
    )
    pipe = Pipeline(
        [
            ("aug", Augmenter(n_copies=1, random_state=0)),
            ("clf", classifier),
        ]
    )
    halving = HalvingGridSearchCV(
        pipe,
        {"clf__lr": [3e-4, 1e-3, 3e-3], "clf__optimizer__weight_decay": [0.0, 0.05]},
        factor=3,
        cv=StratifiedKFold(2),
        random_state=0,
    ).fit(cells.images, cells.target)
    print(f"halving: {halving.best_params_}, accuracy {halving.best_score_:.2f}")

    bayes = OptunaSearchCV(
        pipe,
        {
            "clf__lr": FloatDistribution(3e-4, 1e-2, log=True),
            "clf__optimizer__weight_decay": CategoricalDistribution([0.0, 0.05]),
        },
        cv=StratifiedKFold(2),
        n_trials=4,
        random_state=0,
    ).fit(cells.images, cells.target)
    print(f"Optuna: {bayes.best_params_}, accuracy {bayes.best_score_:.2f}")

plt.figure(figsize=(5, 3), layout="constrained")
plt.semilogx(
    [trial.params["clf__lr"] for trial in bayes.trials_],
    [trial.value for trial in bayes.trials_],
    "o",
)
plt.gca().set(xlabel="learning rate", ylabel="accuracy of Optuna's trials", ylim=(0, 1))
plt.savefig("search_with_halving_and_optuna.png")
