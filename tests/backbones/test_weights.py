"""Weights files: downloaded once, checked, and never unpickled as code."""

import hashlib
import http.server
import json
import os
import re
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from wbcclf import CNNClassifier, SimpleCNNClassifier, load_image_folder, save_model
from wbcclf.backbones import WeightsSource, get_backbone
from wbcclf.backbones._chain import build_chain, feature_shape
from wbcclf.backbones._weights import cache_folder, find_weights
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
def publish(registry):
    """Change where the "imagenet" weights of simple_cnn come from, in the registry."""

    def change(port, digest, name="simple.pth"):
        source = WeightsSource(f"http://127.0.0.1:{port}/{name}", digest, "none")
        spec = replace(get_backbone("simple_cnn"), weights={"imagenet": source})
        registry["simple_cnn"] = spec
        return spec

    return change


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def free_port():
    with http.server.HTTPServer(("127.0.0.1", 0), None) as closed:
        return closed.server_port


def assert_loads(spec, weights, state):
    chain, report = build_chain(spec, weights)
    loaded = dict(chain.state_dict())
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())
    assert len(loaded) == 15  # a convolution, a norm's weight and bias, five times
    assert report.loaded == tuple(loaded)
    assert report.missing == ()
    return report


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


# ---------------------------------------------------------------- the user's files


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_file_loads_and_its_head_is_left_out(suffix, state, tmp_path):
    path = tmp_path / f"mine{suffix}"
    torch.save(state | {"fc.weight": torch.ones(5, 160)}, path)
    for given in (path, str(path)):
        report = assert_loads(get_backbone("simple_cnn"), given, state)
        assert report.unused == ("fc.weight",)
        assert report.source == str(path)


def test_npz_file_loads(state, tmp_path):
    np.savez(tmp_path / "mine.npz", **{key: tensor.numpy() for key, tensor in state.items()})
    assert_loads(get_backbone("simple_cnn"), tmp_path / "mine.npz", state)


def test_safetensors_file_loads(state, tmp_path):
    save_file(state, tmp_path / "mine.safetensors")
    assert_loads(get_backbone("simple_cnn"), tmp_path / "mine.safetensors", state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "teacher"])
@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_checkpoint_is_unwrapped(wrapper, prefix, state, tmp_path):
    wrapped = {prefix + key: tensor for key, tensor in state.items()}
    head = {"dino_head.weight": torch.ones(3)}
    torch.save({"epoch": 3, wrapper: wrapped | head}, tmp_path / "run.pth")
    report = assert_loads(get_backbone("simple_cnn"), tmp_path / "run.pth", state)
    assert report.unused == ("dino_head.weight",)


def test_prefix_that_is_the_networks_own_stays(tmp_path):
    def build():
        return torch.nn.ModuleDict({"backbone": torch.nn.Conv2d(3, 4, 3)})

    spec = replace(get_backbone("simple_cnn"), build=build, blocks=dict)
    original = build().state_dict()
    torch.save(original, tmp_path / "own.pth")
    chain, _ = build_chain(spec, tmp_path / "own.pth")
    assert torch.equal(chain.backbone.weight, original["backbone.weight"])


def test_weights_of_another_layout_are_converted(state, tmp_path):
    def convert(given, network):
        assert "conv1.0.weight" in network.state_dict()
        return {key.removeprefix("old_"): tensor for key, tensor in given.items()}

    spec = replace(get_backbone("simple_cnn"), convert=convert)
    torch.save({f"old_{key}": tensor for key, tensor in state.items()}, tmp_path / "old.pth")
    assert_loads(spec, tmp_path / "old.pth", state)


def test_lazy_layers_take_their_size_from_the_file(tmp_path):
    def build():
        network = torch.nn.Module()
        network.dense1 = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(8))
        network.dense2 = torch.nn.Linear(8, 4)
        return network

    spec = replace(
        get_backbone("simple_cnn"), build=build, blocks=lambda net: dict(net.named_children())
    )
    trained, report = build_chain(spec, None)
    assert report is None
    assert feature_shape(trained, 4, 6) == (4,)
    torch.save(trained.state_dict(), tmp_path / "mlp.pt")
    chain, report = build_chain(spec, tmp_path / "mlp.pt")
    images = torch.randn(2, 3, 4, 6)
    assert torch.equal(chain(images), trained(images))
    assert len(report.loaded) == 4
    with pytest.raises(ValueError, match=r"cannot take images of 5x5 pixels.*input_size"):
        feature_shape(build_chain(spec, tmp_path / "mlp.pt")[0], 5, 5)


def test_missing_file_is_an_error_that_names_the_tags(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.pth.*vgg16 has 'imagenet'"):
        find_weights(get_backbone("vgg16"), tmp_path / "nowhere.pth")
    with pytest.raises(WeightsNotFoundError, match=r"'imagenet'.*simple_cnn has no named ones"):
        find_weights(get_backbone("simple_cnn"), "imagenet")


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz"])
def test_truncated_file_is_refused(suffix, state, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "npz":
        np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})
    else:
        torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(WeightsMismatchError, match=rf"cut\.{suffix} could not be read as weights"):
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


def test_missing_tensors_are_reported_and_stay_as_initialised(state, tmp_path):
    gone = ("conv2.0.weight", "conv4.2.bias")
    part = {key: tensor for key, tensor in state.items() if key not in gone}
    torch.save(part, tmp_path / "part.pt")
    spec = get_backbone("simple_cnn")
    torch.manual_seed(5)
    fresh = build_chain(spec, None)[0].state_dict()
    torch.manual_seed(5)
    chain, report = build_chain(spec, tmp_path / "part.pt")
    assert report.missing == gone
    assert report.loaded == tuple(key for key in state if key not in gone)
    for key, tensor in chain.state_dict().items():
        assert torch.equal(tensor, (fresh if key in gone else state)[key])


def test_batchnorm_counter_of_newer_files_is_no_missing_tensor(tmp_path):
    network = get_backbone("resnet18").build().state_dict()
    old = {key: tensor for key, tensor in network.items() if "num_batches" not in key}
    torch.save(old, tmp_path / "old.pt")
    _, report = build_chain(get_backbone("resnet18"), tmp_path / "old.pt")
    assert report.missing == ()
    assert report.unused == ("fc.weight", "fc.bias")
    assert "layer1_block1.conv1.weight" in report.loaded  # the chain's name, not layer1.0


def test_misshapen_tensors_are_named_with_both_shapes(state, tmp_path):
    right = tuple(state["conv2.0.weight"].shape)
    state["conv2.0.weight"] = torch.zeros(7, 7, 5, 5)
    torch.save(state, tmp_path / "odd.pt")
    message = re.escape(f"conv2.0.weight (7, 7, 5, 5) instead of {right}")
    with pytest.raises(WeightsMismatchError, match=message):
        build_chain(get_backbone("simple_cnn"), tmp_path / "odd.pt")


def test_another_networks_weights_are_refused_by_name(state, tmp_path):
    torch.save(state, tmp_path / "simple.pt")
    message = r"resnet18, weights=.*like 'conv1\.weight'; its own are like 'conv1\.0\.weight'"
    with pytest.raises(WeightsMismatchError, match=message):
        build_chain(get_backbone("resnet18"), tmp_path / "simple.pt")


# ---------------------------------------------------------------- a fitted classifier's file


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """Save a fitted SimpleCNNClassifier; return it and its file."""
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    clf.fit(images, [0, 1, 2, 0, 1, 2])
    path = tmp_path_factory.mktemp("model") / "cells.wbcclf"
    save_model(clf, path)
    return clf, path


def test_model_file_gives_its_backbone_to_another_classifier(model_file):
    trained, path = model_file
    other = CNNClassifier("simple_cnn", weights=path, unfrozen_layers=0, max_epochs=1, device="cpu")
    other.fit(np.zeros((4, 16, 16, 1), np.float32), ["a", "b", "a", "b"])
    given = trained.net_.module_.backbone.state_dict()
    taken = other.net_.module_.backbone.state_dict()
    assert all(torch.equal(tensor, given[key]) for key, tensor in taken.items())
    report = other.weights_report_
    assert report.loaded == tuple(given)
    assert {"head.2.weight", "head.2.bias"} < set(report.unused)


def test_model_file_of_another_backbone_names_both(model_file):
    with pytest.raises(WeightsMismatchError, match=r"backbone 'simple_cnn'.*fit 'resnet18'"):
        build_chain(get_backbone("resnet18"), model_file[1])


def test_model_file_without_a_backbones_name_is_judged_by_its_tensors(model_file, tmp_path):
    """Format 1 did not name it."""
    trained, path = model_file
    old = tmp_path / "old.wbcclf"
    rewrite_document(path, old, lambda document: document.pop("backbone"))
    assert_loads(get_backbone("simple_cnn"), old, trained.net_.module_.backbone.state_dict())
    with pytest.raises(WeightsMismatchError, match=r"do not fit the network \(resnet18"):
        build_chain(get_backbone("resnet18"), old)


def test_model_file_of_a_newer_version_says_so(model_file, tmp_path):
    new = tmp_path / "new.wbcclf"
    rewrite_document(model_file[1], new, lambda document: document.update(format=99))
    with pytest.raises(WeightsMismatchError, match=r"new\.wbcclf.*update wbcclf"):
        build_chain(get_backbone("simple_cnn"), new)


def test_truncated_model_file_is_refused(model_file, tmp_path):
    path = tmp_path / "cut.wbcclf"
    path.write_bytes(model_file[1].read_bytes()[:-200])
    with pytest.raises(WeightsMismatchError, match=r"cut\.wbcclf could not be read"):
        build_chain(get_backbone("simple_cnn"), path)


def rewrite_document(source, target, change):
    """Copy a model file with its document changed in place."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "model.json":
                document = json.loads(content)
                change(document)
                content = json.dumps(document)
            new.writestr(name, content)


# ---------------------------------------------------------------- names in the cache folder


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/models/vgg16-397923af.pth", "vgg16-397923af.pth"),
        ("https://host/models/net.pth?download=1", "net.pth"),
        ("https://hub/timm/a.tf_in1k/resolve/main/model.safetensors", "timm_a.tf_in1k_model.safet"),
    ],
)
def test_files_of_different_networks_have_different_names(url, name):
    assert WeightsSource(url, "", "none").file_name.startswith(name)


def test_file_without_a_published_checksum_is_not_checked(server, publish, state):
    torch.save(state, server.folder / "simple.pth")
    assert_loads(publish(server.server_port, ""), "imagenet", state)


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
