"""What the API answers is what the package says."""

import base64
import io
import socket

import numpy as np
import pytest
from fields.two_classes import DARK, PALE, draw
from PIL import Image
from serving.clients import encoded, form, serving
from sklearn.pipeline import make_pipeline

from wbcclf import (
    ConformalClassifier,
    ImageLoader,
    SimpleCNNClassifier,
    count_cells,
    make_blood_cells,
)
from wbcclf.inspection import explain, predict_files
from wbcclf.serving._guard import Guard, is_loopback
from wbcclf.serving._limits import Limits
from wbcclf.serving._model import ServedModel


@pytest.fixture(scope="module")
def served(model, new):
    served = ServedModel(model, Limits().pixels)
    images, target = new
    served.fit_sets(model[0].transform(list(images[20:])), target[20:], None)
    return served


@pytest.fixture(scope="module")
def client(served):
    with serving(served, Limits(), name="m") as client:
        yield client


def picture_of(url):
    start = "data:image/jpeg;base64,"
    assert url.startswith(start)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix(start)))))


def test_pictures_are_called_as_files_are(client, model, new, tmp_path):
    formats = ("PNG", "JPEG", "BMP", "TIFF")
    files = [
        (f"{number}.{file_format}", encoded(image, file_format))
        for number, (image, file_format) in enumerate(zip(new[0], formats * 5, strict=False))
    ]
    paths = [tmp_path / name for name, _ in files]
    for path, (_, data) in zip(paths, files, strict=True):
        path.write_bytes(data)
    [expected] = predict_files(model, paths)
    status, found = client.post("predict", *files)
    assert status == 200 and len(found["pictures"]) == len(files) == 20
    for row, (each, (name, _)) in enumerate(zip(found["pictures"], files, strict=True)):
        assert each["name"] == name
        assert each["label"] == expected.labels[row]
        assert list(each["probabilities"]) == model.classes_.tolist()
        shares = [*each["probabilities"].values()]
        # Pictures go through the network in batches of other sizes.
        np.testing.assert_allclose(shares, expected.probabilities[row], atol=1e-6)
        assert each["familiarity"] == pytest.approx(expected.familiarity[row], abs=1e-6)
        assert each["cell_found"] == expected.found[row]
        assert each["trained_on"] is False


def test_a_picture_of_the_training_is_known(client, cells):
    _, found = client.post("predict", ("a.png", encoded(cells[0][0])))
    assert found["pictures"][0]["trained_on"] is True


def test_sets_are_those_of_the_conformal_classifier(client, model, new):
    images, target = new
    loader, clf = model[0], model[1]
    sets = ConformalClassifier(clf, random_state=0)
    sets.fit(loader.transform(list(images[20:])), target[20:])
    expected = sets.predict_set(loader.transform(list(images[:8])))
    _, found = client.post("predict", *[("a.png", encoded(image)) for image in images[:8]])
    for each, is_in in zip(found["pictures"], expected, strict=True):
        assert each["set"] == sets.classes_[is_in].tolist()


def test_a_model_leaves_pictures_uncertain_and_has_no_sets():
    cells = make_blood_cells(200, classes=2, image_size=16, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=10, device="cpu", random_state=0)
    held_out = {"X_val": cells.images[100:], "y_val": cells.target[100:]}
    clf.fit(cells.images[:100], cells.target[:100], **held_out).set_params(rejection=0.4)
    # Black is no cell: it is strange to the model.
    answer, _ = ServedModel(clf, 10**6).predict([encoded(np.zeros((20, 20, 3), np.uint8))] * 2)
    assert answer["label"] == "uncertain" and answer["set"] is None
    assert answer["cell_found"] is None


def test_labels_that_are_numbers_become_text(cells):
    images, target = cells
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    model = make_pipeline(ImageLoader(image_size=16), clf).fit(
        list(images[:30]), (target[:30] == "neutrophil").astype(int)
    )
    served = ServedModel(model, 10**6)
    [answer] = served.predict([encoded(images[0])])
    assert answer["label"] in ("0", "1") and [*answer["probabilities"]] == ["0", "1"]
    assert served.explain(encoded(images[0]))["label"] == answer["label"]


def test_a_file_that_is_no_picture_leaves_the_others(client, new):
    status, found = client.post("predict", ("a.png", b"no picture"), ("b.png", encoded(new[0][0])))
    assert status == 200
    broken, whole = found["pictures"]
    assert broken == {"name": "a.png", "error": "not a JPEG, PNG, BMP or TIFF file"}
    assert whole["label"] in ("lymphocyte", "neutrophil")


@pytest.mark.parametrize("path", ["predict", "count", "explain"])
def test_no_picture_at_all_is_a_wrong_type(client, path):
    status, found = client.post(path, ("a.png", b"<html>"))
    assert status == 415 and "not a JPEG, PNG, BMP or TIFF file" in found["error"]


def test_a_field_is_counted(client, served, model):
    field = draw([(80, 80, PALE), (200, 90, DARK), (390, 200, PALE)])
    expected = count_cells(model, [field])
    status, found = client.post("count", ("f.png", encoded(field)))
    assert status == 200 and found["name"] == "f.png"
    assert [row["class"] for row in found["table"]] == expected.table["class"].tolist()
    assert [row["cells"] for row in found["table"]] == expected.table["cells"].tolist()
    assert len(found["cells"]) == len(expected.cells["label"]) == 3
    for row, cell in enumerate(found["cells"]):
        assert cell["number"] == row + 1
        for name in ("min_row", "max_col", "status", "label"):
            assert cell[name] == expected.cells[name][row]
        assert list(cell["probabilities"]) == model.classes_.tolist()
        shares = np.array([*cell["probabilities"].values()])
        np.testing.assert_allclose(shares, expected.probabilities[row], atol=1e-6)
        is_in = shares >= served.sets.thresholds_
        assert cell["set"] == served.sets.classes_[is_in].tolist()
        assert max(picture_of(cell["picture"]).shape) == 112
    assert picture_of(found["overlay"]).shape == field.shape


def test_a_map_of_a_cell_is_that_of_its_part_of_the_field(client, new):
    field = np.full((200, 300, 3), 230, np.uint8)
    field[50:114, 100:164] = new[0][0]
    part = encoded(field[50:114, 100:164])  # 2.5 times as wide as the box
    _, expected = client.post("explain", ("a.png", part))
    status, found = client.post("explain", ("f.png", encoded(field)), box="69,119,95,145")
    assert status == 200 and found == expected | {"name": "f.png"}


def test_the_overlay_of_a_large_field_is_small(served):
    assert picture_of(
        served.count(encoded(np.full((100, 3200, 3), 230, np.uint8)))["overlay"]
    ).shape == (
        50,
        1600,
        3,
    )


def test_a_map_is_that_of_occlusion(client, model, new):
    image = new[0][0]
    expected = explain(model, [image], method="occlusion")
    status, found = client.post("explain", ("a.png", encoded(image)))
    assert status == 200
    assert found["label"] == expected.target[0]
    assert found["drop"] == pytest.approx(expected.drop[0], abs=1e-5)
    assert found["inside"] == pytest.approx(expected.inside[0], abs=1e-5)
    assert picture_of(found["map"]).shape == picture_of(found["picture"]).shape == (112, 112, 3)


def test_what_the_model_is(client):
    status, headers, found = client.ask("GET", "/api/model")
    assert status == 200 and found["name"] == "m"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/api/predict", 405), ("DELETE", "/", 405)],
)
def test_other_addresses_say_which_there_are(client, method, path, status):
    found, _, answer = client.ask(method, path)
    assert found == status and "/api/predict, /api/count" in answer["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "localhost:9000"}, 200),  # a tunnel
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example:8000"}, 403),  # DNS rebinding
        ({"Host": "127.0.0.1@evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Host": ""}, 403),
        ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"}, 200),
        ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:2"}, 403),  # another local page
        ({"Host": "127.0.0.1:1", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:1", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:1", "Origin": "http://["}, 403),
    ],
)
def test_a_page_from_elsewhere_is_refused(client, headers, status):
    assert client.ask("GET", "/api/model", headers=headers)[0] == status
    assert client.ask("POST", "/api/predict", b"", headers)[0] == (415 if status == 200 else status)


def test_the_own_name_of_a_machine_is_known_only_where_others_reach_it():
    name = socket.gethostname().lower()
    assert name in Guard(None, "0.0.0.0").names
    assert Guard(None, "127.0.0.1").names == {"localhost", "127.0.0.1"}
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3")] == [
        True
    ] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "192.168.0.1", "::", "lab.example")] == [
        False
    ] * 4


def test_names_of_files_are_only_names(client, new):
    data = encoded(new[0][0])
    given = ["../../etc/passwd", "a\0.png", "<script>alert(1)</script>.png", "ä.png"]
    status, found = client.post("predict", *[(name, data) for name in given])
    assert status == 200
    assert [each["name"] for each in found["pictures"]] == given


def test_a_form_holds_what_was_put_in():
    # As `requests` and browsers send it, with a content type for each file.
    body = form(("a.png", b"x"))
    assert body.count(b"\r\n\r\n") == 1 and body.endswith(b"--frontier--\r\n")
