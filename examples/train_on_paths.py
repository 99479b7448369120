"""Cross-validate on paths, so that only one fold's images are in memory; save, load, predict.

Run: python examples/train_on_paths.py
"""

import tempfile
from pathlib import Path

from imblearn.pipeline import Pipeline
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

from wbcclf import (
    Augmenter,
    ImageLoader,
    SimpleCNNClassifier,
    list_image_folder,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf.inspection import plot_cells

with tempfile.TemporaryDirectory() as folder:
    # A folder such as a microscope's software exports: class/cell_picture.png
    cells = make_blood_cells(60, classes=3, image_size=64, n_copies=1, random_state=0)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        path = Path(folder, label, f"cell{cells.groups[number]}_{number}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)

    listing = list_image_folder(folder, groups=r"(cell\d+)_")
    model = Pipeline(
        [
            ("loader", ImageLoader(image_size=48)),
            ("copies", Augmenter(random_state=0)),
            ("classifier", SimpleCNNClassifier(max_epochs=4, lr=3e-3, random_state=0)),
        ]
    )
    scores = cross_val_score(
        model, listing.paths, listing.target, groups=listing.groups, cv=StratifiedGroupKFold(2)
    )
    print(f"accuracy {scores.mean():.2f} in {len(scores)} folds")

    model.fit(listing.paths, listing.target)
    save_model(model, Path(folder, "model.wbcclf"))
    restored = load_model(Path(folder, "model.wbcclf"))
    shown = listing.paths[:6]
    predicted = restored.predict(shown)
    for path, label in zip(shown[:3], predicted, strict=False):
        print(Path(path).name, label)
    axes = plot_cells(shown, listing.target[:6], predicted)
    axes.ravel()[0].figure.savefig("train_on_paths.png")
