"""A stand-in for Google Cloud Storage: the requests of its JSON API that gcsfs makes."""

import collections
import contextlib
import http.server
import json
import threading
import urllib.parse


class Bucket:
    """The contents of a bucket "bucket", and the requests made to it.

    Attributes:
        objects: `{name: content}`.
        requests: Number of requests of each kind: "list", "stat", "read", "write".
        bytes_read: Number of bytes of objects that were sent.
        writable: Whether objects can be written.
        address: The server's, for the environment variable STORAGE_EMULATOR_HOST.
    """

    def __init__(self):
        self.objects = {}
        self.requests = collections.Counter()
        self.bytes_read = 0
        self.writable = True
        self.address = ""

    def forget_requests(self):
        self.requests.clear()
        self.bytes_read = 0


@contextlib.contextmanager
def served():
    """A `Bucket` behind a server in this process, within the context."""
    bucket = Bucket()

    handler = type("Handler", (_Handler,), {"bucket": bucket})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        bucket.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield bucket
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        _, _, inside = url.path.partition("/b/bucket")
        name = urllib.parse.unquote(inside.removeprefix("/o").removeprefix("/"))
        if not name:
            self._list(query.get("prefix", ""), query.get("delimiter"))
        elif name not in self.bucket.objects:
            self._answer(404, b"")
        elif query.get("alt") == "media":
            self._read(self.bucket.objects[name])
        else:
            self.bucket.requests["stat"] += 1
            self._answer(200, self._described(name))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.bucket.writable:
            self._answer(403, b"")
            return
        mark = body.partition(b"\n")[0].strip()
        _, about, content, _ = (part.partition(b"\n\n")[2] for part in body.split(mark))
        name = json.loads(about)["name"]
        self.bucket.requests["write"] += 1
        self.bucket.objects[name] = content.removesuffix(b"\n")
        self._answer(200, self._described(name))

    def _list(self, prefix, delimiter):
        self.bucket.requests["list"] += 1
        names, folders = [], set()
        for name in sorted(self.bucket.objects):
            if name.startswith(prefix):
                first, separator, _ = name[len(prefix) :].partition(delimiter or "\0")
                if separator:
                    folders.add(prefix + first + separator)
                else:
                    names.append(name)
        self._answer(200, {"items": [*map(self._described, names)], "prefixes": [*folders]})

    def _read(self, content):
        status, headers = 200, {}
        if span := self.headers.get("Range"):
            first, last = (int(end) for end in span.removeprefix("bytes=").split("-"))
            status = 206
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content = content[first : last + 1]
        self.bucket.requests["read"] += 1
        self.bucket.bytes_read += len(content)
        self._answer(status, content, headers)

    def _described(self, name):
        size = str(len(self.bucket.objects[name]))
        updated = "2026-01-02T03:04:05.678Z"
        return {"name": name, "bucket": "bucket", "size": size, "updated": updated}

    def _answer(self, status, body, headers=()):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
