"""Calibrate probabilities, and give the labels that a cell may have.

Run: python examples/calibrate_and_sets.py

A quarter of the cells sets the temperature, and another one the sets. For every class, the sets
hold the true class of nine in ten new cells of the same laboratory, on average.
"""

from sklearn.model_selection import train_test_split

from wbcclf import ConformalClassifier, SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import evaluate

cells = make_blood_cells(800, classes=4, image_size=32, random_state=0)  # a picture a cell
X, X_test, y, y_test = train_test_split(cells.images, cells.target, random_state=0)
X, X_sets, y, y_sets = train_test_split(X, y, test_size=0.33, random_state=0)
X, X_val, y, y_val = train_test_split(X, y, test_size=0.5, random_state=0)

model = SimpleCNNClassifier(max_epochs=5, lr=3e-3, calibrate=True, random_state=0)
model.fit(X, y, X_val=X_val, y_val=y_val)
result = evaluate(model, X_test, y_test)
error, by_chance = result.calibration.error, result.calibration.error_by_chance
print(f"temperature {model.temperature_:.2f}, accuracy {result.accuracy:.2f}")
print(f"calibration error {error:.3f}; calibrated probabilities would have {by_chance:.3f}")

conformal = ConformalClassifier(model, confidence_level=0.9, random_state=0).fit(X_sets, y_sets)
sets = [conformal.classes_[row] for row in conformal.predict_set(X_test)]
held = [label in labels for label, labels in zip(y_test, sets, strict=True)]
print(f"the true class is in {sum(held) / len(held):.2f} of the sets")
for labels in sets[:4]:
    print("set:", ", ".join(labels) or "empty")
result.plot_reliability().figure.savefig("calibrate_and_sets.png")
