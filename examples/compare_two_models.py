"""Say which of two models is better, on the same cells, or that they cannot be told apart.

Run: python examples/compare_two_models.py

Three pictures of each cell are scored; a cell counts once. The cells that they disagree on are
drawn.
"""

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import compare, plot_cells

cells = make_blood_cells(300, classes=4, image_size=32, random_state=0)
test = make_blood_cells(100, classes=4, image_size=32, n_copies=2, random_state=1)
models = {
    f"{epochs} epochs": SimpleCNNClassifier(max_epochs=epochs, lr=3e-3, random_state=0).fit(
        cells.images, cells.target
    )
    for epochs in (2, 4, 12)
}
for name, model in models.items():
    print(f"{name}: accuracy {model.score(test.images, test.target):.2f}")
print(compare(models, test.images, test.target, test.groups))

short, long = (model.predict(test.images) for model in (models["2 epochs"], models["12 epochs"]))
differ = (short != long).nonzero()[0][:12]
axes = plot_cells(test.images[differ], test.target[differ], short[differ])
axes.ravel()[0].figure.savefig("compare_two_models.png")
