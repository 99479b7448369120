"""`wbcclf serve` under load and under attack: latency, memory, and whether it still answers.

Run: WBCCLF_DATA=... python benchmarks/serving.py [load] [attacks]

The server is a process of its own with the packaged model; clients are threads of this one. Load:
one PBC picture (about 360 x 363 pixels) a request, 1, 8 and 32 clients. The packaged model looks at
it in 8 views. After every attack, and during those that last, an honest client asks for the same
picture: is the answer right, and how long does it take. Memory is the peak of the server's process.
All goes to 127.0.0.1.
"""

import http.client
import io
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _data import DATA
from PIL import Image

BOUNDARY = "frontier"
SECONDS = 15  # of the attacks that last
CODE = "from wbcclf.cli import main; main()"


class Server:
    """`wbcclf serve` in a process of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        figures = Path(self.folder.name, "figures.json")
        command = [sys.executable, "-c", CODE, "serve", "--port", "0", "--json", str(figures)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not figures.exists():
            time.sleep(0.05)
        self.address = json.loads(figures.read_text())["address"]
        self.port = int(self.address.rsplit(":", 1)[1])

    def peak(self):
        """Return the most memory that the process has had, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    def cpu(self):
        """Return the seconds of CPU that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def connect(self):
        """Return a connection for HTTP."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def post(self, path, body, headers=None, connection=None):
        """Return the status and what the JSON holds; (None, reason) of a closed connection."""
        own = connection or self.connect()
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        try:
            own.request("POST", path, body, kind | (headers or {}))
            response = own.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException) as error:
            return None, type(error).__name__
        finally:
            if connection is None:
                own.close()

    def open(self):
        """Return a connection for anything."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def form(*files):
    """Return a form of (name, bytes)."""
    head = '--{}\r\nContent-Disposition: form-data; name="picture"; filename="{}"\r\n\r\n'
    parts = [head.format(BOUNDARY, name).encode() + data + b"\r\n" for name, data in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


# ---------------------------------------------------------------- load


def load(server, picture):
    body = form(("a.jpg", picture))
    print(f"\nLoad, {os.cpu_count()} CPU cores for server and clients\n")
    print("| clients | requests | requests/s | p50, ms | p95, ms | server's CPU s a request |")
    print("|---|---|---|---|---|---|")
    for n_clients in (1, 8, 32):
        seconds = []
        n_requests = 160

        def client(numbers, seconds=seconds):
            connection = server.connect()
            for _ in numbers:
                start = time.perf_counter()
                status, _ = server.post("/api/predict", body, connection=connection)
                assert status == 200, status
                seconds.append(time.perf_counter() - start)

        cpu, start = server.cpu(), time.perf_counter()
        with ThreadPoolExecutor(n_clients) as pool:
            list(pool.map(client, [range(k, n_requests, n_clients) for k in range(n_clients)]))
        took = time.perf_counter() - start
        cuts = statistics.quantiles(seconds, n=20)
        print(
            f"| {n_clients} | {n_requests} | {n_requests / took:.1f} | {1000 * cuts[9]:.0f} | "
            f"{1000 * cuts[18]:.0f} | {(server.cpu() - cpu) / n_requests:.3f} |",
            flush=True,
        )


# ---------------------------------------------------------------- files that harm


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side=50_000):
    """Return a PNG of side x side pixels, all black: of two colours, so as to be made quickly."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_bomb(side, declared, n_bytes):
    """Return a TIFF whose one strip says that it is of `declared` pixels and becomes `n_bytes`."""
    strip = zlib.compress(bytes(n_bytes), 9)
    entries = [
        *((256, 4, 1, declared), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8)),
        *((262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, side)),
        (279, 4, 1, len(strip)),
    ]
    packed = [struct.pack("<HHII", *entry) for entry in entries]
    table = struct.pack("<H", len(entries)) + b"".join(packed) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + table


def jpeg_of_many_scans(n_scans):
    file = io.BytesIO()
    Image.new("RGB", (5000, 5000), "white").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * n_scans + data[-2:]


def noise(side):
    file = io.BytesIO()
    pixels = np.random.RandomState(0).randint(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return file.getvalue()


# ---------------------------------------------------------------- attacks that are over at once


def send(server, picture, file):
    status, found = server.post("/api/predict", form(file))
    return f"{status}: {found.get('error', '') if isinstance(found, dict) else found}"


def wrong_types(server, picture):
    zipped = b"PK\x03\x04" + bytes(100)
    files = {
        "a.png": b"<html><script>alert(1)</script></html>",
        "b.jpg": zipped,
        "c.tif": b"GIF89a" + bytes(50),
        "d.bmp": b"BM" + os.urandom(200),
        "e.jpg": b"",
        "f.jpg": b"\xff\xd8\xff" + os.urandom(5000),
    }
    return " ".join(send(server, picture, each)[:3] for each in files.items())


def truncated(server, picture):
    shares = (len(picture) * share // 10 for share in range(1, 10))
    return " ".join(send(server, picture, ("a.jpg", picture[:end]))[:3] for end in shares)


def many_files(server, picture):
    files = [(f"{k}.jpg", b"\xff\xd8") for k in range(10_000)]
    return f"{server.post('/api/predict', form(*files))}"


def many_requests(server, picture):
    body, codes = form(("a.jpg", b"no picture")), []

    def client(numbers):
        connection = server.connect()
        codes.extend(server.post("/api/predict", body, connection=connection)[0] for _ in numbers)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(client, [range(k, 10_000, 32) for k in range(32)]))
    return ", ".join(f"{codes.count(code)} times {code}" for code in sorted({*codes}, key=str))


def huge_head(server, picture):
    return f"{server.post('/api/predict', b'', {'X-Long': 'a' * 10_000_000})}"


def broken_forms(server, picture):
    bodies = [
        b"",
        form(("a.jpg", picture))[:-30],
        b"--other\r\n\r\n",
        b"--" + BOUNDARY.encode() + b"\r\n" + b"a" * 1_000_000,
        os.urandom(100_000),
        form(("a.jpg", picture)).replace(b"name=", b"nome="),
    ]
    found = [str(server.post("/api/predict", body)[0]) for body in bodies]
    status, _ = server.post("/api/predict", b"{}", {"Content-Type": "application/json"})
    return " ".join([*found, str(status)])


def names(server, picture):
    given = ["../../etc/passwd", "C:\\\\x.jpg", "a%00.jpg", "<img src=x onerror=alert(1)>.jpg"]
    return " ".join(send(server, picture, (name, picture))[:3] for name in given)


def endless_body(server, picture):
    """Send a form with a picture of 1 GB in chunks, without saying how much will come."""
    start, end = form(("a.jpg", b"\0")).split(b"\0")

    def pieces():
        yield start
        for _ in range(1000):
            yield bytes(1_000_000)
        yield end

    return f"{server.post('/api/predict', pieces())}"


FILES = {
    "PNG of 50,000 x 50,000 pixels": png_bomb,
    "TIFF that says 50,000 x 50,000": lambda: tiff_bomb(50_000, 50_000, 10**8),
    "TIFF of 16 pixels that unpacks to 1 GB": lambda: tiff_bomb(4, 4, 10**9),
    "JPEG of 8,000 scans": lambda: jpeg_of_many_scans(8000),
    "25 megapixels of noise": lambda: noise(5000),
}
AT_ONCE = {
    "wrong types with names of pictures": wrong_types,
    "a JPEG cut off at 10, 20, ... 90%": truncated,
    "10,000 files in one request": many_files,
    "10,000 requests, 32 at a time": many_requests,
    "a header of 10 MB": huge_head,
    "broken forms": broken_forms,
    "names of files that do harm": names,
    "1 GB in one request": endless_body,
}

# ---------------------------------------------------------------- attacks that last


def trickle(server, start, n_connections, stop):
    """Keep connections open that have sent `start` and then send a byte a second."""
    sockets = []
    while not stop.is_set():
        while len(sockets) < n_connections and not stop.is_set():
            try:
                sockets.append(server.open())
                sockets[-1].sendall(start)
            except OSError:
                break
        for each in [*sockets]:
            try:
                each.send(b"a")
            except OSError:
                sockets.remove(each)
        stop.wait(1)
    for each in sockets:
        each.close()


def head(n_bytes):
    return (
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; "
        f"boundary={BOUNDARY}\r\nContent-Length: {n_bytes}\r\n"
    ).encode()


def slow_heads(server, picture, stop):
    trickle(server, head(100), 500, stop)


def slow_bodies(server, picture, stop):
    trickle(server, head(60_000_000) + b"\r\n", 500, stop)


def large_slow_bodies(server, picture, stop):
    start = form(("a.jpg", bytes(30_000_000)), ("b.jpg", bytes(30_000_000)))[:-20]
    trickle(server, head(len(start) + 1000) + b"\r\n" + start, 16, stop)


def slow_readers(server, picture, stop):
    page = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    trickle(server, page * 500, 200, stop)


def large_pictures(server, picture, stop):
    body = form(*[(f"{k}.jpg", noise(3000)) for k in range(8)])

    def client(_):
        while not stop.is_set():
            server.post("/api/predict", body)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))


LASTING = {
    "500 slow heads, a byte a second": slow_heads,
    "500 slow bodies, a byte a second": slow_bodies,
    "16 bodies of 60 MB that do not end": large_slow_bodies,
    "200 clients that read no answer": slow_readers,
    "16 clients with 8 pictures of 9 megapixels each": large_pictures,
}


def attacks(server, picture):
    expected = server.post("/api/predict", form(("a.jpg", picture)))
    assert expected[0] == 200

    def honest():
        start = time.perf_counter()
        found = server.post("/api/predict", form(("a.jpg", picture)))
        took = time.perf_counter() - start
        return "right" if found == expected else str(found[0]), took

    print(f"\nAttacks. Peak memory before them: {server.peak():.0f} MB\n")
    print("| attack | answered by | s | then, an honest request | peak, MB |")
    print("|---|---|---|---|---|")
    for name, attack in (FILES | AT_ONCE).items():
        if name in FILES:
            attack = partial(send, file=("a.jpg", attack()))
        start = time.perf_counter()
        answer = attack(server, picture)
        took = time.perf_counter() - start
        what, seconds = honest()
        print(
            f"| {name} | {answer} | {took:.1f} | {what}, {seconds:.2f} s | {server.peak():.0f} |",
            flush=True,
        )
    print(f"\nFor {SECONDS} s\n")
    print("| attack | honest requests meanwhile | slowest, s | afterwards | peak, MB |")
    print("|---|---|---|---|---|")
    for name, attack in LASTING.items():
        stop = threading.Event()
        thread = threading.Thread(target=attack, args=(server, picture, stop))
        thread.start()
        time.sleep(2)
        begun, found = time.perf_counter(), []
        while time.perf_counter() - begun < SECONDS:
            found.append(honest())
            time.sleep(0.2)
        stop.set()
        thread.join()
        what, seconds = honest()
        kinds = [each for each, _ in found]
        counts = ", ".join(f"{kinds.count(each)} {each}" for each in sorted({*kinds}))
        print(
            f"| {name} | {counts} | {max(took for _, took in found):.2f} | {what}, {seconds:.2f} s "
            f"| {server.peak():.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    picture = next(iter(sorted((DATA / "pbc" / "original-size").rglob("*.jpg")))).read_bytes()
    server = Server()
    try:
        for part in sys.argv[1:] or ("load", "attacks"):
            {"load": load, "attacks": attacks}[part](server, picture)
    finally:
        print(f"\nCtrl-C ended it with exit code {server.stop()}")
