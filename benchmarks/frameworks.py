"""The same pictures, network and epochs: this package, fastai, AutoGluon, Keras, and by hand.

Run, for each peer in an environment that has it (Keras with KERAS_BACKEND=torch):
    WBCCLF_DATA=... OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/frameworks.py wbcclf hand
    WBCCLF_DATA=... python benchmarks/frameworks.py report

40 pictures of each of PBC's eight classes to train on, 60 others of each to test; every picture
is a cell of its own. EfficientNet-Lite0 with ImageNet's weights from a file, 96 pixels, batches of
32, 4 epochs; all else is what each package does by itself. The three seeds draw other training
pictures and tests. Keras is offered no such weights without a network, so it has a second task:
three convolutions from scratch, 64 pixels, 10 epochs, its layers written by hand. A run adds a
line to frameworks.jsonl. The lines of code are those of the functions below: from paths to
probabilities.
"""

import inspect
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

DATA = Path(os.environ["WBCCLF_DATA"])
LITE0 = DATA.parent / "weights" / "tf_efficientnet_lite0.safetensors"
NAME = "tf_efficientnet_lite0"
FIGURES = Path("frameworks.jsonl")
N_TRAIN, N_TEST, EPOCHS, BATCH, SIZE = 40, 60, 4, 32, 96
SCRATCH_EPOCHS, SCRATCH_SIZE, FILTERS = 10, 64, (16, 32, 64)
SEEDS = (0, 1, 2)


def draw(seed):
    """Return paths and labels to train on, and paths and labels to test."""
    random_state = np.random.RandomState(seed)
    train, test = [], []
    for folder in sorted(path for path in (DATA / "pbc" / "train").iterdir() if path.is_dir()):
        paths = random_state.permutation(sorted(map(str, folder.glob("*.jpg"))))
        train += [(path, folder.name) for path in paths[:N_TRAIN]]
        test += [(path, folder.name) for path in paths[N_TRAIN : N_TRAIN + N_TEST]]
    train = [train[row] for row in random_state.permutation(len(train))]
    return *map(list, zip(*train, strict=True)), *map(list, zip(*test, strict=True))


def wbcclf(paths, labels, tested, seed):
    from sklearn.pipeline import make_pipeline

    from wbcclf import CNNClassifier, ImageLoader

    classifier = CNNClassifier(
        f"timm:{NAME}", weights=LITE0, max_epochs=EPOCHS, batch_size=BATCH, random_state=seed
    )
    model = make_pipeline(ImageLoader(image_size=SIZE), classifier)
    model.fit(paths, labels)
    return model.classes_, model.predict_proba(tested)


def hand(paths, labels, tested, seed):
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    class Cells(Dataset):
        def __init__(self, paths, targets, transform):
            self.paths, self.targets, self.transform = paths, targets, transform

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, row):
            with Image.open(self.paths[row]) as picture:
                return self.transform(picture.convert("RGB")), self.targets[row]

    torch.manual_seed(seed)
    classes, targets = np.unique(labels, return_inverse=True)
    network = timm.create_model(
        NAME, pretrained=True, num_classes=len(classes), pretrained_cfg_overlay={"file": LITE0}
    )
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    resize, flips = v2.Resize((SIZE, SIZE)), [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    train = Cells(paths, targets, v2.Compose([resize, *flips, *last]))
    loader = DataLoader(train, BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-4, total_steps=EPOCHS * len(loader)
    )
    network.train()
    for _ in range(EPOCHS):
        for images, wanted in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), wanted).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    test = Cells(tested, [0] * len(tested), v2.Compose([resize, *last]))
    with torch.inference_mode():
        outputs = torch.cat([network(images) for images, _ in DataLoader(test, BATCH)])
    return classes, outputs.softmax(1).numpy()


def fastai(paths, labels, tested, seed):
    from fastai.vision.all import (
        ImageDataLoaders,
        Resize,
        ResizeMethod,
        aug_transforms,
        set_seed,
        vision_learner,
    )

    set_seed(seed)
    loaders = ImageDataLoaders.from_lists(
        ".",
        paths,
        labels,
        valid_pct=0,
        item_tfms=Resize(SIZE, ResizeMethod.Squish),
        batch_tfms=aug_transforms(flip_vert=True),
        bs=BATCH,
        num_workers=0,
    )
    learner = vision_learner(loaders, NAME, pretrained_cfg_overlay={"file": LITE0})
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS - 1)  # after one epoch of the head alone
        chances, _ = learner.get_preds(dl=loaders.test_dl(tested))
    return np.array(loaders.vocab), chances.numpy()


def autogluon(paths, labels, tested, seed):
    import pandas as pd
    import timm
    from autogluon.multimodal import MultiModalPredictor

    # It asks timm for pretrained weights by name: these are to come from the file.
    timm.models.get_pretrained_cfg(NAME)  # fills timm's table
    timm.models._registry._model_pretrained_cfgs[f"{NAME}.in1k"].file = str(LITE0)
    options = {
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": NAME,
        "model.timm_image.image_size": SIZE,
        "optim.max_epochs": EPOCHS,
        "env.batch_size": BATCH,
        "env.per_gpu_batch_size": BATCH,
        "env.num_workers": 0,
        "env.num_workers_inference": 0,
    }
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", verbosity=0)
    predictor.fit(
        pd.DataFrame({"image": paths, "label": labels}), hyperparameters=options, seed=seed
    )
    chances = predictor.predict_proba(pd.DataFrame({"image": tested}))
    return chances.columns.to_numpy(), chances.to_numpy()


def wbcclf_scratch(paths, labels, tested, seed):
    from sklearn.pipeline import make_pipeline

    from wbcclf import CNNClassifier, ConvNet, ImageLoader

    classifier = CNNClassifier(
        ConvNet(FILTERS), max_epochs=SCRATCH_EPOCHS, batch_size=BATCH, random_state=seed
    )
    model = make_pipeline(ImageLoader(image_size=SCRATCH_SIZE), classifier)
    model.fit(paths, labels)
    return model.classes_, model.predict_proba(tested)


def keras_scratch(paths, labels, tested, seed):
    import keras
    from keras import layers

    def read(paths):
        size = (SCRATCH_SIZE, SCRATCH_SIZE)
        images = [keras.utils.load_img(path, target_size=size) for path in paths]
        return np.stack([keras.utils.img_to_array(image) for image in images])

    keras.utils.set_random_seed(seed)
    classes, targets = np.unique(labels, return_inverse=True)
    network = keras.Sequential([layers.Rescaling(1 / 255)])
    for filters in FILTERS:
        network.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        network.add(layers.MaxPooling2D())
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Dense(len(classes), activation="softmax"))
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.fit(read(paths), targets, batch_size=BATCH, epochs=SCRATCH_EPOCHS, verbose=0)
    return classes, network.predict(read(tested), verbose=0)


PEERS = (wbcclf, hand, fastai, autogluon, wbcclf_scratch, keras_scratch)


def measure(peer, seed):
    """Train and test once, and keep what came out."""
    paths, labels, tested, truth = draw(seed)
    start, cpu = time.perf_counter(), time.process_time()
    classes, chances = peer(paths, labels, tested, seed)
    figures = {
        "peer": peer.__name__,
        "seed": seed,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - start,
        "tested": tested,
        "truth": truth,
        "predicted": np.asarray(classes)[chances.argmax(axis=1)].tolist(),
    }
    with FIGURES.open("a") as file:
        file.write(json.dumps(figures) + "\n")
    right = np.mean(np.array(truth) == figures["predicted"])
    print(f"{peer.__name__} seed {seed}: {right:.3f}, {figures['cpu_s']:.0f} s of CPU", flush=True)


def report():
    """Print a row for each peer: all seeds, with an interval by cell."""
    from wbcclf.inspection import evaluate_predictions

    lines = [json.loads(line) for line in FIGURES.read_text().splitlines()]
    print("| peer | lines | accuracy of each seed | together, interval by cell | CPU seconds |")
    print("|---|---|---|---|---|")
    for peer in PEERS:
        runs = [line for line in lines if line["peer"] == peer.__name__]
        if not runs:
            continue
        truth, predicted, cells = (
            np.concatenate([run[key] for run in runs]) for key in ("truth", "predicted", "tested")
        )
        result = evaluate_predictions(truth, predicted, groups=cells)
        each = ", ".join(f"{np.equal(run['truth'], run['predicted']).mean():.3f}" for run in runs)
        low, high = result.accuracy_interval
        seconds = sorted(run["cpu_s"] for run in runs)
        print(
            f"| {peer.__name__} | {len(inspect.getsource(peer).splitlines())} | {each} | "
            f"{result.accuracy:.3f} ({low:.3f} to {high:.3f}), {result.n_groups} cells | "
            f"{seconds[0]:.0f} to {seconds[-1]:.0f} |"
        )


def main():
    """Measure the peers that are named, or print the table."""
    if sys.argv[1:] == ["report"]:
        report()
        return
    for name in sys.argv[1:]:
        peer = next(peer for peer in PEERS if peer.__name__ == name)
        peer(*small(draw(0)), 0)  # imports, and what is built at first use, are not timed
        for seed in SEEDS:
            measure(peer, seed)


def small(drawn):
    """Return two pictures of each class of what was drawn."""
    paths, labels, tested, _ = drawn
    rows = np.concatenate(
        [np.flatnonzero(np.equal(labels, each))[:4] for each in sorted({*labels})]
    )
    return [paths[row] for row in rows], [labels[row] for row in rows], tested[:8]


if __name__ == "__main__":
    main()
