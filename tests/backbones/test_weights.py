"""Weights files: downloaded once, checked, and never unpickled as code."""

import hashlib
import http.server
import os
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import models

from wbcclf import CNNClassifier, load_image_folder
from wbcclf.backbones import WeightsSource, _registry, get_backbone
from wbcclf.backbones._chain import build_chain
from wbcclf.backbones._weights import cache_folder, read_weights
from wbcclf.exceptions import WeightsMismatchError, WeightsNotFoundError


@pytest.fixture
def state():
    """Return a state dict of simple_cnn."""
    torch.manual_seed(3)
    return get_backbone("simple_cnn").build().state_dict()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """Give every test a cache folder of its own, and no proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(tmp_path):
    """Serve the files of ``tmp_path / "served"`` on 127.0.0.1."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.folder = folder
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def publish(monkeypatch):
    """Change where the "imagenet" weights of simple_cnn come from, in the registry."""

    def change(port, digest, name="simple.pth"):
        source = WeightsSource(f"http://127.0.0.1:{port}/{name}", digest)
        spec = replace(get_backbone("simple_cnn"), weights={"imagenet": source})
        monkeypatch.setitem(_registry._BACKBONES, "simple_cnn", spec)
        return spec

    return change


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def free_port():
    with http.server.HTTPServer(("127.0.0.1", 0), None) as closed:
        return closed.server_port


def assert_loads(spec, weights, state):
    loaded = dict(build_chain(spec, weights).state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())
    assert len(loaded) == 15  # a convolution, a norm's weight and bias, five times


# ---------------------------------------------------------------- download and cache


def test_weights_are_downloaded_once_and_then_taken_from_the_cache(server, publish, state):
    file = server.folder / "simple.pth"
    torch.save(state, file)
    spec = publish(server.server_port, sha256(file)[:8])
    assert_loads(spec, "imagenet", state)
    cached = cache_folder() / "simple.pth"
    assert cached.read_bytes() == file.read_bytes()
    assert [path.name for path in cached.parent.iterdir()] == ["simple.pth"]

    file.unlink()  # nothing to download any more: the second time must not ask
    assert_loads(spec, "imagenet", state)


def test_classifier_takes_weights_from_the_cache_without_a_network(publish, state, tmp_path):
    cache_folder().mkdir(parents=True)
    cached = cache_folder() / "simple.pth"
    torch.save(state, cached)
    publish(free_port(), sha256(cached))
    clf = CNNClassifier(weights="imagenet", unfrozen_layers=0, device="cpu", max_epochs=1)
    clf.fit(np.zeros((4, 16, 16, 3), np.uint8), [0, 1, 0, 1])
    frozen = clf.net_.module_.backbone.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in frozen.items())


def test_without_network_and_cache_the_error_names_file_folder_and_ways_out(publish):
    spec = publish(free_port(), "0" * 8)
    with pytest.raises(WeightsNotFoundError) as caught:
        build_chain(spec, "imagenet")
    for part in (
        "weights='imagenet'",
        "simple_cnn",
        "simple.pth",
        str(cache_folder()),
        "weights=None",
        "weights='path/to/simple.pth'",
    ):
        assert part in str(caught.value)


def test_file_gone_from_the_server_is_the_same_error(server, publish):
    with pytest.raises(WeightsNotFoundError, match=r"simple\.pth.*404"):
        build_chain(publish(server.server_port, "0" * 8), "imagenet")


def test_cache_folder_that_cannot_be_made_is_the_same_error(server, publish, state, monkeypatch):
    file = server.folder / "simple.pth"
    torch.save(state, file)
    monkeypatch.setenv("TORCH_HOME", str(file))  # a file where the folder should be
    with pytest.raises(WeightsNotFoundError, match=r"simple\.pth.*cache folder"):
        build_chain(publish(server.server_port, sha256(file)), "imagenet")


def test_download_with_another_sha256_is_refused_and_not_kept(server, publish, state):
    torch.save(state, server.folder / "simple.pth")
    spec = publish(server.server_port, "0" * 8)
    with pytest.raises(WeightsMismatchError, match=r"download of simple\.pth is damaged"):
        build_chain(spec, "imagenet")
    assert list(cache_folder().iterdir()) == []


def test_download_that_breaks_off_is_refused_and_not_kept(server, publish, state, monkeypatch):
    file = server.folder / "simple.pth"
    torch.save(state, file)
    spec = publish(server.server_port, sha256(file))

    def broken_off(self, source, output):
        output.write(source.read(1000))
        self.close_connection = True

    monkeypatch.setattr(server.RequestHandlerClass, "copyfile", broken_off)
    with pytest.raises((WeightsMismatchError, WeightsNotFoundError), match=r"simple\.pth"):
        build_chain(spec, "imagenet")
    assert list(cache_folder().iterdir()) == []


def test_hand_placed_file_with_another_sha256_is_refused_by_its_path(publish, state):
    cache_folder().mkdir(parents=True)
    placed = cache_folder() / "simple.pth"
    torch.save(state, placed)
    digest = sha256(placed)
    placed.write_bytes(placed.read_bytes()[:-1])
    with pytest.raises(WeightsMismatchError, match="is not the published file") as caught:
        build_chain(publish(free_port(), digest), "imagenet")
    assert str(placed) in str(caught.value)
    assert digest[:8] in str(caught.value)


# ---------------------------------------------------------------- files of one's own


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_file_loads_and_its_head_is_left_out(suffix, state, tmp_path):
    path = tmp_path / f"mine{suffix}"
    torch.save(state | {"fc.weight": torch.ones(5, 160)}, path)
    assert_loads(get_backbone("simple_cnn"), path, state)
    assert_loads(get_backbone("simple_cnn"), str(path), state)


def test_npz_file_loads(state, tmp_path):
    np.savez(tmp_path / "mine.npz", **{key: tensor.numpy() for key, tensor in state.items()})
    assert_loads(get_backbone("simple_cnn"), tmp_path / "mine.npz", state)


def test_missing_file_is_an_error_that_names_the_tags(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.pth.*vgg16 has 'imagenet'"):
        read_weights(get_backbone("vgg16"), tmp_path / "nowhere.pth")
    with pytest.raises(WeightsNotFoundError, match=r"'imagenet'.*simple_cnn has no named ones"):
        read_weights(get_backbone("simple_cnn"), "imagenet")


def test_truncated_file_is_refused(state, tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(WeightsMismatchError, match=r"cut\.pth could not be read as weights"):
        build_chain(get_backbone("simple_cnn"), path)


class MakesFolder:
    """Unpickling this makes a folder: the harmless stand-in for code in a weights file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickled_code_is_refused_and_not_run(legacy, state, tmp_path):
    path, proof = tmp_path / "evil.pth", tmp_path / "it ran"
    code = state | {"conv1.0.weight": MakesFolder(proof)}
    torch.save(code, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsMismatchError, match=r"evil\.pth could not be read as weights"):
        build_chain(get_backbone("simple_cnn"), path)
    assert not proof.exists()


def test_npz_with_pickled_object_is_refused_and_not_run(tmp_path):
    path, proof = tmp_path / "evil.npz", tmp_path / "it ran"
    np.savez(path, **{"conv1.0.weight": np.array([MakesFolder(proof)], dtype=object)})
    with pytest.raises(WeightsMismatchError, match=r"evil\.npz.*without pickled objects"):
        build_chain(get_backbone("simple_cnn"), path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightsMismatchError, match=r"odd\.pt holds no state dict"):
        build_chain(get_backbone("simple_cnn"), tmp_path / "odd.pt")


def test_missing_tensors_are_named(state, tmp_path):
    del state["conv2.0.weight"], state["conv4.0.weight"]
    torch.save(state, tmp_path / "part.pt")
    message = r"2 of 15 .*conv2\.0\.weight, conv4\.0\.weight"
    with pytest.raises(WeightsMismatchError, match=message):
        build_chain(get_backbone("simple_cnn"), tmp_path / "part.pt")


def test_misshapen_tensors_are_named_with_both_shapes(state, tmp_path):
    right = tuple(state["conv2.0.weight"].shape)
    state["conv2.0.weight"] = torch.zeros(7, 7, 5, 5)
    torch.save(state, tmp_path / "odd.pt")
    message = re.escape(f"conv2.0.weight (7, 7, 5, 5) instead of {right}")
    with pytest.raises(WeightsMismatchError, match=message):
        build_chain(get_backbone("simple_cnn"), tmp_path / "odd.pt")


def test_another_networks_weights_are_refused_by_name(state, tmp_path):
    torch.save(state, tmp_path / "simple.pt")
    with pytest.raises(WeightsMismatchError, match=r"resnet18, weights=.*like 'conv1\.weight'"):
        build_chain(get_backbone("resnet18"), tmp_path / "simple.pt")


# ---------------------------------------------------------------- a real pretrained network


def test_real_squeezenet_weights_give_torchvisions_features(wbcclf_data, tmp_path):
    file = wbcclf_data.parent / "weights" / "squeezenet1_1_features.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    for label in ("neutrophil", "lymphocyte"):
        (tmp_path / "pbc" / label).mkdir(parents=True)
        for path in sorted((wbcclf_data / "pbc" / "train" / label).glob("*.jpg"))[:4]:
            (tmp_path / "pbc" / label / path.name).symlink_to(path)
    cells = load_image_folder(tmp_path / "pbc")
    assert cells.images.shape == (8, 128, 128, 3)
    clf = CNNClassifier(
        "squeezenet1_1", weights=file, unfrozen_layers=0, max_epochs=2, device="cpu"
    ).fit(cells.images, cells.target)

    features = []
    hook = clf.net_.module_.backbone[-1].register_forward_hook(
        lambda module, inputs, output: features.append(output)
    )
    clf.predict(cells.images)
    hook.remove()

    original = models.squeezenet1_1(weights=None).features
    with np.load(file, allow_pickle=False) as arrays:
        prefix = "features."
        state = {key.removeprefix(prefix): torch.from_numpy(arrays[key]) for key in arrays.files}
    original.load_state_dict(state)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = torch.from_numpy((cells.images / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = original.eval()(normalised)
    largest = expected.abs().max().item()
    assert largest > 1  # real features, not noise near zero
    # Normalised in one multiplication and addition instead of three operations: rounding.
    torch.testing.assert_close(torch.cat(features), expected, rtol=1e-5, atol=1e-5 * largest)
