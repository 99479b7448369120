"""A server in a thread, and what is sent to it."""

import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager

from PIL import Image

from wbcclf.serving._app import Api, make_app
from wbcclf.serving._server import listen, make_server
from wbcclf.serving._worker import Worker

BOUNDARY = "frontier"
KIND = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def encoded(image, file_format="PNG", **options):
    """Return a picture as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, **options)
    return file.getvalue()


def form(*files, **values):
    """Return a form of (name, bytes) and values."""
    head = '--{}\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    parts = [
        head.format(BOUNDARY, name, "").encode() + value.encode() for name, value in values.items()
    ]
    parts += [
        head.format(BOUNDARY, "picture", f'; filename="{name}"').encode() + data
        for name, data in files
    ]
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


class Client:
    """Asks a server on this machine."""

    def __init__(self, port):
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, method, path, body=None, headers=()):
        """Return (status, headers, what the JSON holds)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            text = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return response.status, response.headers, json.loads(text) if is_json else text
        finally:
            connection.close()

    def post(self, path, *files, **values):
        """Return (status, what the JSON holds) for a form."""
        status, _, found = self.ask("POST", f"/api/{path}", form(*files, **values), KIND)
        return status, found

    def open(self, start):
        """Return a connection that has sent `start`."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(start)
        return connection


@contextmanager
def serving(served, limits, corrections=None, /, **about):
    """Give a client of a server that runs in a thread."""
    worker = Worker(served)
    with listen("127.0.0.1", 0) as listener:
        about = {"limits": {}, "corrections": corrections and corrections.names} | about
        api = Api(worker, corrections, limits, about)
        server = make_server(make_app(api, "127.0.0.1"), limits)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)
            worker.close()
            assert not thread.is_alive()
