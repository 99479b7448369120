"""Real Dask clusters: a scheduler and two worker processes, one of which is killed."""

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from threading import Thread

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

import wbcclf
from wbcclf import (
    CellCropper,
    ImageLoader,
    SimpleCNNClassifier,
    _cluster,
    make_blood_cells,
    save_model,
)
from wbcclf._parts import file_digest, part_key
from wbcclf._predictions import Predictions

distributed = pytest.importorskip("distributed", reason="distributed is not installed")
dask_serialize = distributed.protocol.dask_serialize

PATIENCE = 120  # seconds: this is about what happens, not about how soon
# Workers compute with as many threads as the tests do, or results would be rounded differently.
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    # Dask's profiler may stop a worker for good in Python 3.11 (python/cpython#106883).
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE} s"
        time.sleep(0.02)


class Cluster:
    """A scheduler and workers with a thread each, as processes of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = [self.start("scheduler", "--port=0", f"--scheduler-file={self.file}")]
        until(self.file.exists, "the scheduler's start")
        self.address = json.loads(self.file.read_text())["address"]
        self.workers = {}

    def start(self, kind, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host=127.0.0.1"]
        with open(self.folder / f"{kind}.log", "ab") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard", *options],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
            )

    def complete(self, client):
        """Have two workers, also after one was killed."""
        self.workers = {name: p for name, p in self.workers.items() if p.poll() is None}
        while len(self.workers) < 2:
            name = f"worker{len(self.processes)}"
            self.workers[name] = self.start(
                "worker", self.address, "--nthreads=1", "--no-nanny", f"--name={name}"
            )
            self.processes.append(self.workers[name])
        until(lambda: self.names(client) == set(self.workers), "the workers' start")

    @staticmethod
    def names(client):
        return {worker["name"] for worker in client.scheduler_info(-1)["workers"].values()}

    def kill_a_busy_worker(self, client):
        """Kill one while the scheduler has it computing something; return its name."""
        busy = []

        def find():
            tasks, workers = client.processing(), client.scheduler_info(-1)["workers"]
            # Workers come and go between the two answers.
            busy[:] = [workers[address]["name"] for address in workers if tasks.get(address)]
            return busy

        until(find, "a worker's being busy")
        name = busy[0]
        self.workers[name].send_signal(signal.SIGKILL)
        self.workers[name].wait()
        return name

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster.address, set_as_default=True) as client:
        cluster.complete(client)
        yield client


class Counted(np.ndarray):
    """An array that counts how often it is sent anywhere: pickled, or by Dask's own protocol."""

    pickled = 0
    sent = 0

    def __reduce_ex__(self, protocol):
        Counted.pickled += 1
        return np.asarray(self).__reduce_ex__(protocol)


@dask_serialize.register(Counted)
def _send(array):
    Counted.sent += 1
    header, frames = dask_serialize.dispatch(np.ndarray)(np.asarray(array))
    return header | {"type-serialized": pickle.dumps(np.ndarray)}, frames


@pytest.mark.filterwarnings("ignore:.*frozen at random weights")
def test_a_search_outlives_a_worker_and_sends_the_images_once(cluster, client, tmp_path):
    """As docs/cluster.md says it is to be done; 160 images, since it is other with few."""
    cells = make_blood_cells(160, classes=2, image_size=32, random_state=0)
    clf = SimpleCNNClassifier(device="cpu", max_epochs=4, random_state=0)
    grid = {"lr": [1e-4, 3e-3], "unfrozen_layers": [0, 2, "all"]}
    expected = GridSearchCV(clf, grid, cv=StratifiedKFold(3)).fit(cells.images, cells.target)

    # The store is shared by the processes of the cluster.
    X, y = cells.images.view(Counted), cells.target
    folds = [(train.tolist(), test.tolist()) for train, test in StratifiedKFold(3).split(X, y)]
    search = GridSearchCV(clf.set_params(memory=tmp_path), grid, cv=folds)
    client.amm.stop()
    killed = []
    killer = Thread(target=lambda: killed.append(cluster.kill_a_busy_worker(client)))
    killer.start()
    with joblib.parallel_config("dask", scatter=[X, y]):
        search.fit(X, y)
    killer.join()
    assert Counted.pickled == 0  # as a part of a task
    assert Counted.sent == 1, Counted.sent
    assert killed
    assert len(cluster.names(client)) == 1
    for name, column in expected.cv_results_.items():
        if "time" not in name:
            np.testing.assert_array_equal(search.cv_results_[name], column)
    assert search.best_params_ == expected.best_params_
    np.testing.assert_array_equal(
        search.predict_proba(cells.images), expected.predict_proba(cells.images)
    )


# ---------------------------------------------------------------- wbcclf predict --scheduler


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    cells = make_blood_cells(40, classes=2, image_size=32, random_state=0)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    path = tmp_path_factory.mktemp("model") / "model.wbcclf"
    save_model(clf.fit(cells.images, cells.target), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1,000 pictures, some of them broken: four parts."""
    folder = tmp_path_factory.mktemp("images")
    images = make_blood_cells(1000, classes=2, image_size=32, random_state=1).images
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png")
    for number in (3, 300, 999):
        (folder / f"{number:04}.png").write_bytes(b"no picture")
    return folder


def command(model, folder, output, *options):
    code = "from wbcclf.cli import main; main()"
    arguments = ["predict", str(model), str(folder), "-o", str(output), *options]
    return [sys.executable, "-c", code, *arguments]


def predict(*arguments):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )


@pytest.fixture(scope="module")
def expected(model, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("expected") / "predictions.csv"
    done = predict(model, folder, output)
    assert done.returncode == 0, done.stderr
    assert output.read_text().count("\n") == 1001
    return output.read_bytes(), done.stderr


def test_a_cluster_predicts_what_the_shell_does(cluster, client, model, folder, expected, tmp_path):
    output = tmp_path / "predictions.csv"
    done = predict(model, folder, output, "--scheduler", cluster.address)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected[0]
    assert "left out, 3 of 1000 images" in done.stderr
    assert os.listdir(tmp_path) == ["predictions.csv"]


@pytest.mark.filterwarnings("ignore:No white cell was found")
def test_workers_cut_as_the_shell_does(cluster, client, folder, tmp_path):
    paths = [str(folder / f"{number:04}.png") for number in range(12)]
    loader = ImageLoader(24, crop=CellCropper())
    classifier = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    fitted = make_pipeline(loader, classifier).fit(paths[4:], ["a", "b"] * 4)
    save_model(fitted, tmp_path / "model")
    local, parted = tmp_path / "local.csv", tmp_path / "parted.csv"
    done = [
        predict(tmp_path / "model", paths[0], local, *paths[1:]),
        predict(tmp_path / "model", paths[0], parted, *paths[1:], "--scheduler", cluster.address),
    ]
    assert [one.returncode for one in done] == [0, 0], done
    assert parted.read_bytes() == local.read_bytes()
    n_missing = local.read_text().count("no white cell found")
    assert n_missing and f"no white cell was found in {n_missing} of 11" in done[1].stderr


def parts_of(output):
    """Return the number of each file of a part; what is removed meanwhile is not there."""
    found = {}
    for folder, _, names in os.walk(output.with_name(f"{output.name}.parts")):
        for name in names:
            if re.fullmatch(r"\w{40}\.entry", name):
                with contextlib.suppress(FileNotFoundError):
                    found[name] = os.stat(os.path.join(folder, name)).st_ino
    return found


def test_a_killed_shell_and_a_killed_worker_lose_nothing(
    cluster, client, model, folder, expected, tmp_path
):
    output = tmp_path / "predictions.csv"
    options = (model, folder, output, "--scheduler", cluster.address)
    process = subprocess.Popen(command(*options), env=ENVIRONMENT, stderr=subprocess.PIPE)
    until(lambda: parts_of(output), "the first part")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not output.exists()
    kept = parts_of(output)
    # A part that was damaged meanwhile is not taken.
    damaged = min(kept)
    [path] = tmp_path.rglob(damaged)
    path.write_bytes(path.read_bytes()[:-1])

    process = subprocess.Popen(command(*options), env=ENVIRONMENT, stderr=subprocess.PIPE)
    seen = {}

    def look():
        seen.update(parts_of(output))
        return process.poll() is not None

    if len(kept) < 4:
        cluster.kill_a_busy_worker(client)
    until(look, "the end")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.read_bytes() == expected[0]
    for name, inode in kept.items():
        if name != damaged and name in seen:
            assert seen[name] == inode  # the same file: it was not computed again
    assert os.listdir(tmp_path) == ["predictions.csv"]


def test_single_files_are_predicted_and_parts_lie_beside_other_things(
    cluster, client, model, folder, tmp_path
):
    output = tmp_path / "predictions.csv"
    note = tmp_path / "predictions.csv.parts" / "note.txt"
    note.parent.mkdir()
    note.touch()
    first, second = (str(folder / name) for name in ("0001.png", "0000.png"))
    done = predict(model, first, output, second, "--scheduler", cluster.address)
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in output.read_text().splitlines()[1:]] == [first, second]
    assert os.listdir(note.parent) == ["note.txt"]


def predictions(address, model, paths, parts, chunk_size, advance=lambda: None):
    digest = file_digest(model)
    found = Predictions(parts, digest, chunk_size)
    compute = partial(_cluster.predict_on_cluster, address, model, digest, None)
    found.complete(((path, None) for path in paths), compute, advance)
    return found


def test_parts_that_vanish_are_named_and_computed_again(cluster, client, model, folder, tmp_path):
    """As another run with the same output may remove them when it is done."""
    paths = [str(folder / f"{number:04}.png") for number in range(10, 22)]
    parts = tmp_path / "parts"
    found = predictions(cluster.address, model, paths, parts, 2)
    shutil.rmtree(parts)
    with pytest.raises(RuntimeError, match=r"Parts are gone from .*Run this one again"):
        next(found.images())
    again = predictions(cluster.address, model, paths, parts, 2)
    assert [path for part in again.images() for path in part.paths] == paths


def test_names_of_parts_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "cell.png").touch()
        os.utime(tmp_path / name / "cell.png", (0, 0))
    monkeypatch.chdir(tmp_path / "a")
    here = part_key("model", ["cell.png"])
    assert here == part_key("model", [str(tmp_path / "a" / "cell.png")])
    monkeypatch.chdir(tmp_path / "b")
    assert here != part_key("model", ["cell.png"])


def test_files_that_only_a_worker_cannot_read_are_not_left_out(model, folder, tmp_path):
    for number in range(3):
        shutil.copy(folder / f"{number + 10:04}.png", tmp_path / f"{number}.png")
    chunk = [str(tmp_path / f"{number}.png") for number in range(3)]
    (tmp_path / "1.png").rename(tmp_path / "away")  # not there for the worker
    digest = file_digest(model)
    _, unread, host = _cluster._predict_part(str(model), digest, None, str(tmp_path), chunk)
    assert unread == [chunk[1]]
    _cluster._check_read(unread, host)  # nor here: left out, as without a cluster
    (tmp_path / "away").rename(tmp_path / "1.png")
    with pytest.raises(FileNotFoundError, match=r"worker on .* cannot read .*1\.png, which can"):
        _cluster._check_read(unread, host)
    (tmp_path / "1.png").write_bytes(b"no picture")
    _, unread, _ = _cluster._predict_part(str(model), digest, None, str(tmp_path), chunk)
    assert not unread


def test_files_may_vanish_or_become_pipes_at_any_time(model, tmp_path):
    path = tmp_path / "cell.png"
    gone = part_key("model", [str(path)])
    found = _cluster._predict_part(str(model), file_digest(model), None, ".", [str(path)])
    os.mkfifo(path)
    _cluster._check_read(*found[1:])  # to open it would take for ever
    path.unlink()
    path.touch()
    assert part_key("model", [str(path)]) != gone


def test_a_lost_scheduler_is_named_and_what_was_done_is_kept(model, folder, tmp_path):
    ours = Cluster(tmp_path)
    paths = [str(folder / f"{number:04}.png") for number in range(10, 200)]
    parts = tmp_path / "parts"
    try:
        with distributed.Client(ours.address, set_as_default=False) as client:
            ours.complete(client)
        with pytest.raises(OSError, match=f"{ours.address} is lost .* run the same command again"):
            predictions(ours.address, model, paths, parts, 1, ours.processes[0].kill)
    finally:
        ours.stop()
    assert list(parts.rglob("*.entry"))


def test_parts_of_other_models_and_files_are_not_taken(cluster, client, model, folder, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    paths = [str(few / f"{number}.png") for number in range(6)]
    for number in range(6):
        (few / f"{number}.png").write_bytes((folder / f"{number + 10:04}.png").read_bytes())

    def n_computed(model, paths):
        parts = tmp_path / "out.csv.parts"
        before = parts_of(tmp_path / "out.csv").items()
        found = predictions(cluster.address, model, paths, parts, 2)
        assert [path for part in found.images() for path in part.paths] == paths
        return len(parts_of(tmp_path / "out.csv").items() - before)

    assert n_computed(model, paths) == 3
    assert n_computed(model, paths) == 0
    (few / "6.png").write_bytes((few / "0.png").read_bytes())
    paths.append(str(few / "6.png"))
    assert n_computed(model, paths) == 1
    os.utime(paths[2])
    assert n_computed(model, paths) == 1
    other = tmp_path / "other.wbcclf"
    save_model(wbcclf.load_model(model).set_params(batch_size=7), other)
    assert n_computed(other, paths) == 4


def test_what_is_wrong_with_a_cluster_is_said(model, tmp_path, monkeypatch):
    def first(address):
        todo = iter([("part", [str(model)])])
        return next(_cluster.predict_on_cluster(address, model, "", None, todo))

    monkeypatch.setattr(_cluster, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(OSError, match=r"--scheduler tcp://127.0.0.1:9 cannot be reached"):
        first("tcp://127.0.0.1:9")
    for address in ("nonsense", "nonsense://x:1", "tcp://127.0.0.1", "http://127.0.0.1:1", ""):
        with pytest.raises(ValueError, match=f"'{address}' is not an address like tcp://"):
            first(address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'wbcclf\[dask\]'"):
        first("tcp://127.0.0.1:9")


def test_a_scheduler_without_workers_and_a_folder_that_workers_do_not_see(
    model, folder, tmp_path, monkeypatch
):
    lonely = Cluster(tmp_path)
    try:
        monkeypatch.setattr(_cluster, "SECONDS_TO_CONNECT", 2)
        todo = iter([("part", [str(folder / "0000.png")])])
        chunks = _cluster.predict_on_cluster(lonely.address, model, "", None, todo)
        with pytest.raises(OSError, match=r"has no workers\. Start some with `dask worker tcp://"):
            next(chunks)
    finally:
        lonely.stop()
    with pytest.raises(FileNotFoundError, match=r"does not see /nowhere: .*shared"):
        _cluster._predict_part(str(model), "", None, "/nowhere", ["a.png"])
    with pytest.raises(FileNotFoundError, match=r"does not see /nowhere/model: .*shared"):
        _cluster._predict_part("/nowhere/model", "", None, str(folder), ["0000.png"])
    with pytest.raises(OSError, match=r"has a different model at"):
        _cluster._predict_part(str(model), "another", None, str(folder), ["0000.png"])
