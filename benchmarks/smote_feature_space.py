"""Compare what SMOTE gives in feature space with what it gives on pixels, on real cells.

Run: WBCCLF_DATA=... python benchmarks/smote_feature_space.py [SEED ...]

Training sets as imbalanced as that of the published nine-class system are drawn from pbc/train; a
linear model and an SVM on DeepFeatures are trained on each with and without seven remedies, and
scored on a balanced set of other images. Prints a markdown table.
"""

import os
import platform
import sys
import time
import warnings

import numpy as np
from _data import COUNTS, DATA, N_TEST, SQUEEZENET, draw_unequal, unique_images
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import wbcclf
from wbcclf import SMOTE, Augmenter, DeepFeatures, load_image_folder
from wbcclf.exceptions import SmallClassWarning

HALF_WAY = 75  # images per class that augmentation makes where SMOTE makes the rest
LAYERS = {
    "last block, mean": {},
    "fire6, maximum": {"layer": "fire6", "pooling": "max"},
}
CLASSIFIERS = {
    "logistic": lambda **params: LogisticRegression(max_iter=5000, **params),
    "SVM (RBF)": lambda **params: SVC(**params),
}
HEADER = ("features", "classifier", "remedy", "macro-F1", "gain", "balanced accuracy", "accuracy")


def remedies(images, y, features, transform, seed):
    """Yield name, training features, labels, the sampler on features, and class_weight."""
    yield "nothing", features, y, None, None
    yield "class_weight='balanced'", features, y, None, "balanced"
    yield "RandomOverSampler", features, y, RandomOverSampler(random_state=seed), None
    on_pixels, labels = SMOTE(random_state=seed).fit_resample(images, y)
    new = transform(on_pixels[len(y) :])
    yield "SMOTE on pixels, then features", np.vstack([features, new]), labels, None, None
    yield "SMOTE on features", features, y, SMOTE(random_state=seed), None
    copies, labels = Augmenter(sampling_strategy="auto", random_state=seed).fit_resample(images, y)
    new = transform(copies[len(y) :])
    yield "Augmenter, then features", np.vstack([features, new]), labels, None, None
    names, counts = np.unique(y, return_counts=True)
    goal = dict(zip(names, np.maximum(counts, HALF_WAY), strict=True))
    copies, labels = Augmenter(sampling_strategy=goal, random_state=seed).fit_resample(images, y)
    new = transform(copies[len(y) :])
    yield (
        f"Augmenter to {HALF_WAY}, then SMOTE on features",
        np.vstack([features, new]),
        labels,
        SMOTE(random_state=seed),
        None,
    )


def score(y_true, y_pred, shares):
    """Return macro-F1, mean recall, and recall weighted with the training set's class shares."""
    recall = recall_score(y_true, y_pred, average=None)
    return f1_score(y_true, y_pred, average="macro"), recall.mean(), recall @ shares


def main(seeds):
    start = time.perf_counter()
    warnings.simplefilter("ignore", SmallClassWarning)  # three images have two neighbours
    cells = load_image_folder(DATA / "pbc" / "train")
    images, target = cells.images, cells.target
    rows = unique_images(images, target)
    results = {(layer, name): {} for layer in LAYERS for name in CLASSIFIERS}
    for layer, params in LAYERS.items():
        deep = DeepFeatures("squeezenet1_1", weights=SQUEEZENET, device="cpu", **params).fit(images)
        all_features = deep.transform(images)
        for seed in seeds:
            train, test = draw_unequal(rows, target, np.random.RandomState(seed))
            y = target[train]
            shares = np.unique(y, return_counts=True)[1] / len(y)
            made = remedies(images[train], y, all_features[train], deep.transform, seed)
            for remedy, X, labels, sampler, class_weight in made:
                for name, classifier in CLASSIFIERS.items():
                    model = classifier(class_weight=class_weight)
                    pipe = make_pipeline(StandardScaler(), sampler, model).fit(X, labels)
                    figures = score(target[test], pipe.predict(all_features[test]), shares)
                    results[layer, name].setdefault(remedy, []).append(figures)
    print(f"| {' | '.join(HEADER)} |")
    print(f"|{'---|' * len(HEADER)}")
    for (layer, name), by_remedy in results.items():
        for remedy, figures in by_remedy.items():
            macro_f1, balanced, accuracy = np.transpose(figures)
            gain = macro_f1 - np.array(by_remedy["nothing"])[:, 0]
            columns = (macro_f1, gain, balanced, accuracy)
            texts = [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in columns]
            print(f"| {layer} | {name} | {remedy} | {' | '.join(texts)} |")
    print(
        f"\nData: pbc/train, 128x128, {len(target) - len(rows)} repeated images left out. Training "
        f"sets: {COUNTS} images of the eight classes, whose order is drawn; test sets: {N_TEST} "
        f"other images of each. Seeds: {seeds}; mean ± standard deviation over them. gain: in "
        "macro-F1 over nothing, on the same draw. accuracy: recall weighted with the training "
        "set's class shares. Features: SqueezeNet 1.1 with ImageNet weights, standardised; "
        f"classifiers at scikit-learn's defaults.\nwbcclf {wbcclf.__version__}, "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU, "
        f"{(time.perf_counter() - start) / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or list(range(10)))
