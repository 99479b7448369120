"""Cross-validate augmentation and a network on unequal classes, cell by cell.

Run: python examples/cross_validate_imbalanced.py
"""

from imblearn.pipeline import Pipeline
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from wbcclf import Augmenter, SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import evaluate_predictions

# Four classes, the largest four times as large as the smallest; two pictures of every cell.
cells = make_blood_cells(80, classes=4, image_size=48, imbalance=4.0, n_copies=1, random_state=0)
model = Pipeline(
    [
        ("copies", Augmenter(sampling_strategy="auto", random_state=0)),
        ("classifier", SimpleCNNClassifier(max_epochs=5, lr=3e-3, random_state=0)),
    ]
)
predicted = cross_val_predict(
    model, cells.images, cells.target, groups=cells.groups, cv=StratifiedGroupKFold(3)
)
result = evaluate_predictions(cells.target, predicted, groups=cells.groups)
for name, recall, support in zip(result.classes, result.recall, result.support, strict=True):
    print(f"{name:12} {support:4} images, recall {recall:.2f}")
print(result)
result.plot_confusion().figure.savefig("cross_validate_imbalanced.png")
