"""What a server takes at most, and what it does with clients that are slow, many or hostile."""

import json
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from fields.two_classes import DARK, PALE, draw
from serving.clients import BOUNDARY, KIND, encoded, form, serving

from wbcclf.serving._limits import Limits
from wbcclf.serving._model import ServedModel

LIMITS = Limits(
    pictures=3,
    picture_bytes=100_000,
    request_bytes=250_000,
    held_bytes=400_000,
    pixels=250_000,
    connections=8,
    requests=2,
    head_seconds=0.5,
    body_seconds=1,
    answer_seconds=2,
)


@pytest.fixture(scope="module")
def served(model):
    return ServedModel(model, LIMITS.pixels)


@pytest.fixture(scope="module")
def client(served):
    with serving(served, LIMITS) as client:
        yield client


@pytest.fixture(autouse=True)
def good(request, new):
    """Whatever a test does, the next request is answered right and soon."""
    yield
    if "client" in request.fixturenames:
        start = time.monotonic()
        status, found = request.getfixturevalue("client").post(
            "predict", ("a.png", encoded(new[0][0]))
        )
        assert status == 200 and found["pictures"][0]["label"] in ("lymphocyte", "neutrophil")
        assert time.monotonic() - start < 5


SMALL = ("a.png", b"no picture")


def head(n_bytes, path="predict"):
    return (
        f"POST /api/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {n_bytes}\r\n"
        f"Content-Type: {KIND['Content-Type']}\r\n\r\n"
    ).encode()


def answer_of(connection):
    """Return the status and JSON of what comes until the server closes, or (None, None)."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
            text, _, body = data.partition(b"\r\n\r\n")
            if body.endswith(b"}"):
                return int(text.split()[1]), json.loads(body)
    except ConnectionError:
        pass
    finally:
        connection.close()
    return None, None


@pytest.mark.parametrize(
    ("body", "status", "advice"),
    [
        (form(*[SMALL] * 4), 413, "3 pictures"),
        (form(*[SMALL] * 2000), 413, "3 pictures"),
        (form(("a.png", bytes(100_001))), 413, "a.png: a picture may have 0 MB"),
        (form(*[("a.png", bytes(99_000))] * 3), 413, "Send fewer"),
        (form(SMALL, a="b" * 2000), 413, "a value"),
        (form(**{str(k): "" for k in range(4)}), 413, "3 values"),
        (form(("a.png", encoded(np.zeros((501, 500, 3), np.uint8)))), 413, "250,000 pixels"),
        (form(), 400, "no picture"),
        (form(name="a"), 400, "no picture"),
        (b"", 400, "ends too early"),
        (form(SMALL)[:-9], 400, "ends too early"),
        (b"--other\r\n\r\n", 400, "broken"),
        (b"\xff" * 5000, 400, "broken"),
        (
            form(SMALL).replace(b"Content", b"A: %b\r\nB: %b\r\nC" % ((b"a" * 3000,) * 2)),
            400,
            "too long",
        ),
    ],
)
def test_what_is_too_much_or_broken_is_refused(client, body, status, advice):
    found, _, answer = client.ask("POST", "/api/predict", body, KIND)
    assert (found, advice in answer["error"]) == (status, True), answer


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", ""]
)
def test_what_is_no_form_is_refused(client, kind):
    status, _, answer = client.ask("POST", "/api/predict", b"{}", {"Content-Type": kind})
    assert status == 415 and "curl -F" in answer["error"]


def test_a_boundary_that_is_too_long_is_refused(client):
    kind = {"Content-Type": f"multipart/form-data; boundary={'b' * 3000}"}
    assert client.ask("POST", "/api/predict", b"--", kind)[0] == 400


@pytest.mark.parametrize("path", ["count", "explain"])
def test_one_picture_at_a_time(client, path):
    status, answer = client.post(path, SMALL, SMALL)
    assert status == 400 and "one at a time" in answer["error"]


def test_a_body_of_unknown_length_is_refused_when_it_is_too_long(client):
    pieces = (bytes(10_000) for _ in range(100))
    status, _, answer = client.ask("POST", "/api/predict", pieces, KIND)
    assert status in (400, 413), answer  # no form, or too long
    whole = form(*[("a.png", bytes(99_000))] * 3)
    status, _, answer = client.ask("POST", "/api/predict", iter([whole[:9], whole[9:]]), KIND)
    assert status == 413


def test_a_length_that_is_too_long_is_refused_before_anything_comes(client):
    assert answer_of(client.open(head(10**12)))[0] == 413


def test_bombs_are_refused(client):
    # A picture's size is in its head.
    data = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "BMP"))
    data[18:26] = (50_000).to_bytes(4, "little") * 2
    status, answer = client.post("predict", ("a.png", bytes(data)))
    assert status == 413 and "250,000 pixels" in answer["error"]


@pytest.mark.parametrize("path", ["predict", "count", "explain"])
def test_a_field_of_more_cells_than_can_be_looked_at_in_time_is_refused(served, path, monkeypatch):
    field = encoded(draw([(80, 80, PALE), (80, 240, DARK), (200, 160, PALE)]))
    with serving(served, Limits()) as client:
        assert client.post(path, ("f.png", field))[0] == 200
        monkeypatch.setattr(served, "cells", 2)
        status, answer = client.post(path, ("f.png", field))
        assert status == 413 and "more than 2 white cells" in answer["error"]
        assert "cut it into parts" in answer["error"]
        # Others are answered as before.
        alone = encoded(draw([(80, 80, PALE)]))
        assert client.post(path, ("f.png", alone))[0] == 200


def test_a_cut_off_picture_is_refused(client, new):
    data = encoded(new[0][0], "JPEG")
    for share in range(1, 10):
        assert client.post("predict", ("a.jpg", data[: len(data) * share // 10]))[0] == 415


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, 431),
        (b"\x16\x03\x01 TLS\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # without a host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_told_so(client, start, status):
    found, answer = answer_of(client.open(start))
    assert found == status and answer["error"].startswith("This is not a request")


def test_a_broken_piece_ends_the_connection(client):
    start = head(10).replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    assert answer_of(client.open(start + b"zz\r\n")) == (None, None)


def test_a_slow_head_is_given_up(client):
    start = time.monotonic()
    status, answer = answer_of(client.open(b"GET / HTTP/1.1\r\nHost:"))
    assert status == 408 and 0.4 < time.monotonic() - start < 3
    assert "too long" in answer["error"]
    # So is a second request of the same connection.
    request = b"GET /api/model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    connection = client.open(request)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    time.sleep(0.7)
    connection.sendall(request[:9])
    assert answer_of(connection)[0] == 408


def test_a_slow_body_is_given_up(client):
    start = time.monotonic()
    status, answer = answer_of(client.open(head(1000) + b"--"))
    assert status == 408 and 0.9 < time.monotonic() - start < 4
    assert "Send fewer" in answer["error"]


PAGE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST / HTTP/1.1\r\n",
        head(100_000),
        PAGE * 300,  # whose answers are not read
    ],
)
def test_more_connections_than_there_is_room_for_keep_nobody_out(client, start):
    with ExitStack() as slow:
        for _ in range(40):
            slow.enter_context(client.open(start))
        begun = time.monotonic()
        assert client.ask("GET", "/api/model")[0] == 200
        assert time.monotonic() - begun < LIMITS.head_seconds


def test_a_new_connection_never_gives_way_to_those_at_work(served, new, stopped):
    picture = ("a.png", encoded(new[0][0]))
    with serving(served, replace(LIMITS, connections=LIMITS.requests)) as client:
        threads, statuses = ask_in_threads(client, LIMITS.requests, picture)
        wait_until_asked(stopped)
        assert client.ask("GET", "/api/model")[0] == 200
        stopped[0].set()
        for thread in threads:
            thread.join()
    assert statuses == [200] * LIMITS.requests


def test_requests_that_do_not_wait_for_answers_get_one(client):
    connection = client.open(PAGE * 300)
    answers = b""
    try:
        while piece := connection.recv(65536):
            answers += piece
    except ConnectionError:
        pass
    assert answers.count(b"HTTP/1.1 200 OK") == 1
    connection.close()


def test_bodies_that_do_not_end_give_way_to_others(client, new):
    # Each is within its limit; all of them are not.
    part = form(("a.png", bytes(90_000)), ("b.png", bytes(90_000)))[:-30]
    slow = [client.open(head(200_000) + part) for _ in range(5)]
    begun = time.monotonic()
    assert client.post("predict", ("a.png", encoded(new[0][0])))[0] == 200
    assert time.monotonic() - begun < LIMITS.body_seconds
    statuses = [answer_of(connection)[0] for connection in slow]
    assert statuses[0] in (408, 503)  # the oldest; 503 if it was just sending


@pytest.fixture
def stopped(served, monkeypatch):
    """Return an event, before which the model gives no answer, and the pictures that it gets."""
    go_on, seen, predict = threading.Event(), [], served.predict

    def wait(files):
        seen.extend(files)
        go_on.wait(10)
        return predict(files)

    monkeypatch.setattr(served, "predict", wait)
    yield go_on, seen
    go_on.set()


def wait_until_asked(stopped):
    """Wait until the model has a picture, and then a moment for those that wait behind it."""
    deadline = time.monotonic() + 10
    while not stopped[1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)


def ask_in_threads(client, n_clients, *files):
    """Return threads that ask, and the list of the statuses that they get."""
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.post("predict", *files)[0]))
        for _ in range(n_clients)
    ]
    for thread in threads:
        thread.start()
    return threads, statuses


def test_a_busy_server_says_so_and_listens(client, new, stopped):
    picture = ("a.png", encoded(new[0][0]))
    threads, statuses = ask_in_threads(client, LIMITS.requests, picture)
    wait_until_asked(stopped)
    status, headers, answer = client.ask("POST", "/api/predict", form(picture), KIND)
    assert status == 503 and "busy" in answer["error"] and headers["retry-after"] == "2"
    assert client.ask("GET", "/api/model")[0] == 200
    stopped[0].set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * LIMITS.requests


def test_a_model_that_takes_too_long_is_not_waited_for(client, new, stopped):
    status, answer = client.post("predict", ("a.png", encoded(new[0][0])))
    assert status == 503 and "did not answer in 2 seconds" in answer["error"]
    stopped[0].set()


def test_who_waits_is_told_that_the_server_is_stopped(served, new, stopped, monkeypatch, caplog):
    monkeypatch.setattr("wbcclf.serving._server.SHUTDOWN", 0.1)
    with serving(served, Limits(pixels=LIMITS.pixels)) as client:
        threads, statuses = ask_in_threads(client, 1, ("a.png", encoded(new[0][0])))
        time.sleep(0.3)
    threads[0].join()
    assert statuses == [503] and "Traceback" not in caplog.text
    stopped[0].set()


def test_what_nobody_waits_for_is_not_begun(client, new, stopped):
    first, second = (("a.png", encoded(image)) for image in new[0][:2])
    threads, _ = ask_in_threads(client, 1, first)
    time.sleep(0.2)
    body = form(second)
    connection = client.open(head(len(body)) + body)
    time.sleep(0.2)
    connection.close()
    time.sleep(0.2)
    stopped[0].set()
    threads[0].join()
    assert client.post("predict", first)[0] == 200
    assert stopped[1] == [first[1], first[1]]


def test_pictures_of_several_clients_go_through_the_network_together(served, new, monkeypatch):
    limits = Limits(pixels=LIMITS.pixels)
    sizes, predict = [], served.predict

    def note(files):
        sizes.append(len(files))
        time.sleep(0.2)
        return predict(files)

    monkeypatch.setattr(served, "predict", note)
    with serving(served, limits) as client:
        threads, statuses = ask_in_threads(client, 8, ("a.png", encoded(new[0][0])))
        for thread in threads:
            thread.join()
    assert statuses == [200] * 8 and sum(sizes) == 8 and len(sizes) < 5


def test_a_failure_is_told_and_the_server_goes_on(client, new, served, monkeypatch, caplog):
    def fail(files):
        raise RuntimeError("no memory, say")

    picture = ("a.png", encoded(new[0][0]))
    with monkeypatch.context() as patch:
        patch.setattr(served, "predict", fail)
        status, answer = client.post("predict", picture, picture)
    assert status == 500 and "terminal" in answer["error"]
    for _ in range(50):  # the answer comes first
        time.sleep(0.1 * ("no memory, say" not in caplog.text))
    assert "no memory, say" in caplog.text


def test_the_limits_of_a_server_leave_room_for_pictures_of_microscopes():
    limits = Limits()
    assert limits.pixels >= 20e6 and limits.picture_bytes < limits.request_bytes < limits.held_bytes
    assert len(BOUNDARY) < 70
