"""A double of a 1Password Connect server, by its published description (version 1.7.1 of the API): vaults, items and the
patching of items, over TLS. Its state is a file that the test writes; it says its port, and writes each request down."""

import http.server
import json
import os
import re
import ssl
import sys
import time
import urllib.parse

HERE = sys.argv[1]
ID = "[0-9a-z]{26}"


def state():
    with open(os.path.join(HERE, "state.json"), encoding="utf-8") as file:
        return json.load(file)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.note("connection", "")

    def note(self, what, path):
        with open(os.path.join(HERE, "requests.jsonl"), "a", encoding="utf-8") as requests:
            requests.write(json.dumps({"what": what, "path": path}) + "\n")

    def answer(self, status, value, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, message, headers=()):
        self.answer(status, {"status": status, "message": message}, headers)

    def filtered(self, things, attribute, query):
        wanted = urllib.parse.parse_qs(query).get("filter")
        if wanted is None:
            return things
        match = re.fullmatch(attribute + r' eq ("(?:[^"\\]|\\.)*")', wanted[0], re.DOTALL)
        name = json.loads(match[1])
        # As a server that matches more than it was asked for.
        return [thing for thing in things if name.lower() in thing[attribute].lower()]

    def handle_request(self, method):
        self.note(method, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        now = state()
        mode = now.get("mode", "")
        if mode == "hanging":
            time.sleep(1000)
        if mode == "garbage":
            return self.answer(200, b"garbage s3cret")
        if mode == "dying":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{\"id\": \"s3cret")
            self.close_connection = True
            return None
        if mode == "flood":
            self.send_response(200)
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            self.wfile.write(b" " * 10_000_000)
            return None
        if mode == "elsewhere":
            return self.answer(302, b"", [("Location", now["location"])])
        if mode == "rate limited":
            return self.fail(429, "rate limit exceeded", [("Retry-After", "30")])
        if mode == "in trouble":
            return self.fail(503, "s3cret")
        if self.headers.get("Authorization") != "Bearer " + now["token"]:
            return self.fail(401, "Invalid token signature")
        url = urllib.parse.urlsplit(self.path)
        vaults = [vault for vault in now["vaults"] if not vault.get("hidden")]
        if url.path == "/v1/vaults":
            names = [{"id": vault["id"], "name": vault["name"]} for vault in vaults]
            return self.answer(200, self.filtered(names, "name", url.query))
        match = re.fullmatch(f"/v1/vaults/({ID})/items(?:/({ID}))?", url.path)
        if not match:
            return self.fail(400, "Invalid vault or item UUID")
        vault = next((vault for vault in now["vaults"] if vault["id"] == match[1]), None)
        if vault is None:
            return self.fail(404, f"vault {match[1]} not found")
        if vault.get("hidden"):
            return self.fail(403, f"vault {match[1]} is not in scope")
        if not match[2]:
            items = [{"id": item["id"], "title": item["title"], "vault": {"id": vault["id"]},
                      "category": item["category"]} for item in vault["items"]]
            return self.answer(200, self.filtered(items, "title", url.query))
        item = next((item for item in vault["items"] if item["id"] == match[2]), None)
        if item is None or now.get("gone") == match[2]:
            return self.fail(404, f"item {match[2]} not found")
        if method == "PATCH":
            if now.get("read only"):
                return self.fail(403, "token does not have permission to update items")
            if not now.get("forgets"):
                self.patch(item, json.loads(body))
                with open(os.path.join(HERE, "state.json"), "w", encoding="utf-8") as file:
                    json.dump(now, file)
        return self.answer(200, self.whole(item, vault))

    def patch(self, item, changes):
        for change in changes:
            assert change["op"] == "add"
            parts = [part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]]
            if parts == ["fields"]:
                item["fields"].append({"id": "n" * 26, **change["value"]})
            else:
                field = next(field for field in item["fields"] if field["id"] == parts[1])
                assert parts[0] == "fields" and parts[2] == "value" and len(parts) == 3
                field["value"] = change["value"]

    def whole(self, item, vault):
        sections = {}
        for field in item["fields"]:
            if "section" in field:
                sections.setdefault(field["section"]["id"], field["section"])
        fields = [dict(field) for field in item["fields"]]
        for field in fields:
            if "section" in field:
                field["section"] = {"id": field["section"]["id"]}
        return {"id": item["id"], "title": item["title"], "vault": {"id": vault["id"]}, "category": item["category"],
                "version": 1, "sections": list(sections.values()), "fields": fields}

    def do_GET(self):
        self.handle_request("GET")

    def do_PATCH(self):
        self.handle_request("PATCH")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
