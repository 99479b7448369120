"""Compare remedies for rare classes at equal training steps, on real cells.

Run: WBCCLF_DATA=... python benchmarks/rare_classes.py simple_cnn|squeezenet1_1 [--seeds 0 1 2 3 4]

Training sets as unequal as that of the published nine-class system are drawn from pbc/train. The
same network is trained on each with every remedy, for the same number of steps of 32 images, and
scored on a balanced set of other images. Two more rows give SMOTE as many passes over its larger
set, and nothing as many steps as that. Prints a markdown table.
"""

import argparse
import os
import platform
import time
import warnings

import numpy as np
from _data import COUNTS, DATA, N_TEST, SQUEEZENET, draw_unequal, unique_images
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline
from sklearn.metrics import f1_score, recall_score

import wbcclf
from wbcclf import SMOTE, Augmenter, CNNClassifier, ImageSampler, load_image_folder
from wbcclf.exceptions import SmallClassWarning

SIZE = 64
NETWORKS = {
    "simple_cnn": {"lr": 3e-3},
    "squeezenet1_1": {"weights": SQUEEZENET, "lr": 1e-3},
}
# Name: (samplers, parameters of the classifier, steps in units of the common budget).
SMOTE_FACTOR = len(COUNTS) * max(COUNTS) / sum(COUNTS)
REMEDIES = {
    "nothing": ([], {}, 1),
    "class_weight": ([], {"class_weight": "balanced"}, 1),
    "balanced_batches": ([], {"balanced_batches": True}, 1),
    "focal loss": ([], {"loss": "focal"}, 1),
    "RandomOverSampler": ([ImageSampler(RandomOverSampler())], {}, 1),
    "SMOTE": ([SMOTE()], {}, 1),
    "Augmenter, copies up to the largest class": ([Augmenter(sampling_strategy="auto")], {}, 1),
    "Augmenter, one copy each, then SMOTE": ([Augmenter(n_copies=1), SMOTE()], {}, 1),
    "Augmenter on the fly": ([], {"augment": Augmenter()}, 1),
    "Augmenter on the fly, class_weight": (
        [],
        {"augment": Augmenter(), "class_weight": "balanced"},
        1,
    ),
    "Augmenter on the fly, balanced_batches": (
        [],
        {"augment": Augmenter(), "balanced_batches": True},
        1,
    ),
    "SMOTE, as many passes": ([SMOTE()], {}, SMOTE_FACTOR),
    "nothing, as many steps as that": ([], {}, SMOTE_FACTOR),
}


def main(network, seeds, steps):
    start = time.perf_counter()
    warnings.simplefilter("ignore", SmallClassWarning)  # three images have two neighbours
    cells = load_image_folder(DATA / "pbc" / "train", image_size=SIZE)
    images, target = cells.images, cells.target
    rows = unique_images(images, target)
    results = {}
    for seed in seeds:
        train, test = draw_unequal(rows, target, np.random.RandomState(seed))
        for name, (samplers, params, factor) in REMEDIES.items():
            classifier = CNNClassifier(
                network,
                max_steps=round(steps * factor),
                precision="auto",
                random_state=seed,
                **NETWORKS[network],
                **params,
            )
            model = make_pipeline(*samplers, classifier)
            # Every random_state, ImageSampler's inner one, too.
            seeded = {key: seed for key in model.get_params() if key.endswith("random_state")}
            predicted = model.set_params(**seeded).fit(images[train], target[train])
            predicted = predicted.predict(images[test])
            f1 = f1_score(target[test], predicted, average="macro")
            recall = recall_score(target[test], predicted, average="macro")
            results.setdefault(name, []).append((f1, recall))
            print(f"seed {seed}, {name}: {f1:.3f}, {recall:.3f}", flush=True)
    print("\n| remedy | macro-F1 | gain | mean recall |\n|---|---|---|---|")
    for name, figures in results.items():
        f1, recall = np.transpose(figures)
        gain = f1 - np.array(results["nothing"])[:, 0]
        texts = [f"{x.mean():.3f} ± {x.std(ddof=1):.3f}" for x in (f1, gain, recall)]
        print(f"| {name} | {' | '.join(texts)} |")
    print(
        f"\n{network}, {SIZE}x{SIZE}, {steps} steps of 32 images (the last two rows "
        f"{round(steps * SMOTE_FACTOR)}). Training sets: {COUNTS} images of PBC's eight classes, "
        f"whose order is drawn; test sets: {N_TEST} other images of each. Seeds {seeds}; mean ± "
        "standard deviation over them; gain: over nothing, on the same draw.\n"
        f"wbcclf {wbcclf.__version__}, {os.cpu_count()} CPU cores ({platform.machine()}), no GPU, "
        f"{(time.perf_counter() - start) / 60:.1f} minutes"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=600)
    main(**vars(parser.parse_args()))
