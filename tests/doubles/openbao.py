"""A double of an OpenBao or Vault server: what keyloan uses of the published HTTP API, with its answers.

Started with a directory: writes PORT there, appends every request to `requests` (one JSON object a line), keeps
`state` (live leases and tokens), and does what the file `mode` says instead of answering, where there is one.
With cert.pem and key.pem in the directory it speaks TLS."""

import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import uuid

HERE = sys.argv[1]
LOCK = threading.Lock()
NOW = "2026-11-21T10:00:00.000000000Z"


def path_of(name):
    return os.path.join(HERE, name)


SETTINGS = json.load(open(path_of("settings")))
# Tokens are said to last so long, and to be renewed for that long so many times; they are taken for longer, so that no
# test depends on who is quick.
TTL, RENEWALS = SETTINGS.get("ttl", 3600), SETTINGS.get("renewals", 1000)
ROLES = {"role-1": {"sid-1"}}
WRAPPED = {
    "wrap-1": ("auth/approle/role/ci/secret-id", {"secret_id": "sid-1", "secret_id_accessor": "acc"}),
    "wrap-forged": ("sys/wrapping/wrap", {"secret_id": "sid-1"}),
}
MOUNTS = {
    "secret": ("kv", {"version": "2"}),
    "old": ("kv", None),
    "database": ("database", None),
    "ssh": ("ssh", None),
    "apps/kv": ("kv", {"version": "2"}),
}
KV1 = {"old": {"ci/pypi": {"token": "from v1", "port": 22}}}
KV2 = {
    "secret": {
        "ci/pypi": [{"user": "__token__", "token": "tok", "n": 12345678901234567890123, "empty": "", "none": None}],
        "ci/deep/er": [{"a": "1"}],
        "ü \"x\"?/it's #1": [{"päss/word": "zwei\nlines"}],
        "gone": [{"a": "1"}, None],
        "denied/x": [{"a": "1"}],
        "big": [{"f%02d" % n: "v%d" % n for n in range(20)}],
    },
    "apps/kv": {"web": [{"key": "other mount"}]},
}
TOKENS = {"root-token": {"since": time.time(), "ttl": 0, "renewals": 0, "by": "root"}}
LEASES = {}


def made(by, token):
    TOKENS[token] = {"since": time.time(), "ttl": TTL, "renewals": RENEWALS, "by": by}
    return token


for name in SETTINGS.get("tokens", []):
    made("token", name)


def errors(status, *said):
    return status, {"errors": list(said)}


def data(content, lease="", lasts=0):
    return 200, {
        "request_id": str(uuid.uuid4()), "lease_id": lease, "renewable": bool(lease), "lease_duration": lasts,
        "data": content, "wrap_info": None, "warnings": None, "auth": None,
    }


def auth(token, ttl):
    status, body = data(None)
    body["auth"] = {
        "client_token": token, "accessor": "acc", "policies": ["default", "ci"], "token_policies": ["default", "ci"],
        "metadata": {"role_name": "ci"}, "lease_duration": int(ttl), "renewable": True, "entity_id": "",
        "token_type": "service", "orphan": True, "mfa_requirement": None, "num_uses": 0,
    }
    return status, body


INVALID = errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
DENIED = errors(403, "1 error occurred:\n\t* permission denied\n\n")
UNWRAPPED = errors(400, "wrapping token is not valid or does not exist")


def metadata(versions):
    deleted = NOW if versions[-1] is None else ""
    return {"created_time": NOW, "custom_metadata": None, "deletion_time": deleted, "destroyed": False,
            "version": len(versions)}


def listed(items, folder):
    keys = set()
    for item in items:
        if item.startswith(folder):
            first, *rest = item[len(folder):].split("/", 1)
            keys.add(first + "/" if rest else first)
    return data({"keys": sorted(keys)}) if keys else errors(404)


def kv2(items, method, rest, query, body):
    kind, _, item = rest.partition("/")
    if kind == "metadata":
        return listed(items, item) if query == "list=true" else errors(405, "unsupported operation")
    versions = items.get(item)
    if method == "GET":
        if versions is None:
            return errors(404)
        status, answer = data({"data": versions[-1], "metadata": metadata(versions)})
        return (404 if versions[-1] is None else status), answer
    cas = body.get("options", {}).get("cas")
    if cas != len(versions or []):
        return errors(400, "check-and-set parameter did not match the current version")
    items.setdefault(item, []).append(body["data"])
    return data(metadata(items[item]))


def kv1(items, method, item, query, body):
    if query == "list=true":
        return listed(items, item)
    if method == "GET":
        return data(items[item], lasts=2764800) if item in items else errors(404)
    items[item] = body
    return 204, None


def database(role, token):
    if role == "static-creds/app":
        return data({"username": "static", "password": "static password", "ttl": 3600})
    if role != "creds/app":
        return errors(400, "unknown role: " + role)
    lease = "database/creds/app/" + uuid.uuid4().hex
    LEASES[lease] = token
    n = uuid.uuid4().hex[:8]
    return data({"username": "v-app-" + n, "password": "pw-" + n}, lease, 3600)


def ssh(role, body):
    if role != "sign/deploy":
        return errors(400, "unknown role: " + role)
    key, ca = path_of("user.pub"), path_of("ca")
    if not os.path.exists(ca):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ca], check=True)
    open(key, "w").write(body["public_key"] + "\n")
    principals = body.get("valid_principals") or "deploy"
    subprocess.run(["ssh-keygen", "-q", "-s", ca, "-I", "vault-token", "-n", principals, "-V",
                    "-30s:+" + body["ttl"], key], check=True)
    signed = open(path_of("user-cert.pub")).read()
    return data({"serial_number": "c73f26d2340276aa", "signed_key": signed})


def answered(method, path, query, token, body):
    if path == "auth/approle/login":
        if body.get("secret_id") not in ROLES.get(body.get("role_id"), ()):
            return errors(400, "invalid role or secret ID")
        return auth(made("approle", "hvs." + uuid.uuid4().hex), TTL)
    if path == "sys/wrapping/lookup":
        held = WRAPPED.get(body["token"])
        return data({"creation_path": held[0], "creation_time": NOW, "creation_ttl": 300}) if held else UNWRAPPED
    if path == "sys/wrapping/unwrap":
        held = WRAPPED.pop(body.get("token", token), None)
        return data(held[1]) if held else UNWRAPPED
    if token is None:
        return errors(400, "missing client token")
    held = TOKENS.get(token)
    if held is None:
        return INVALID
    if path == "auth/token/lookup-self":
        left = max(0, int(held["since"] + held["ttl"] - time.time()))
        return data({"accessor": "acc", "creation_ttl": held["ttl"], "display_name": held["by"], "id": token,
                     "renewable": bool(held["ttl"]), "ttl": left, "policies": ["default"], "type": "service"})
    if path == "auth/token/renew-self":
        held["renewals"] -= 1
        if held["renewals"] < 0:
            return auth(token, held["ttl"] // 3)
        held["since"] = time.time()
        return auth(token, held["ttl"])
    if path == "auth/token/revoke-self":
        del TOKENS[token]
        for lease in [lease for lease, of in LEASES.items() if of == token]:
            del LEASES[lease]
        return 204, None
    if path == "sys/leases/revoke":
        if SETTINGS.get("revoke") == "denied":
            return DENIED
        LEASES.pop(body["lease_id"], None)
        return 204, None
    if path.startswith("sys/internal/ui/mounts/"):
        wanted = path[len("sys/internal/ui/mounts/"):]
        for mount, (kind, options) in MOUNTS.items():
            if (wanted + "/").startswith(mount + "/"):
                return data({"accessor": kind + "_1", "config": {}, "description": "", "local": False,
                             "options": options, "path": mount + "/", "type": kind, "uuid": "x"})
        return errors(403, "preflight capability check returned 403, please ensure client's policies grant access "
                      "to path \"%s/\"" % wanted)
    for mount, (kind, options) in MOUNTS.items():
        if path.startswith(mount + "/"):
            rest = path[len(mount) + 1:]
            if "denied" in rest:
                return DENIED
            if kind == "database":
                return database(rest, token)
            if kind == "ssh":
                return ssh(rest, body)
            return kv2(KV2[mount], method, rest, query, body) if options else kv1(KV1[mount], method, rest, query, body)
    return errors(404, "no handler for route \"%s\". route entry not found." % path)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        raw, _, query = self.path.partition("?")
        path = __import__("urllib.parse").parse.unquote(raw).removeprefix("/v1/")
        token, namespace = self.headers.get("X-Vault-Token"), self.headers.get("X-Vault-Namespace")
        with LOCK:
            mode = json.load(open(path_of("mode"))) if os.path.exists(path_of("mode")) else {}
            if not path.startswith(mode.get("only", "")) or mode.get("method", self.command) != self.command:
                mode = {}
            if "status" in mode:
                status, content = mode["status"], mode.get("body")
            elif SETTINGS.get("namespace") and namespace != SETTINGS["namespace"]:
                status, content = INVALID
            elif self.headers.get("X-Vault-Request") != "true":
                status, content = errors(412, "missing 'X-Vault-Request' header")
            else:
                status, content = answered(self.command, path, query, token, body)
            note = {"method": self.command, "raw": self.path, "path": path, "token": token, "namespace": namespace,
                    "body": body, "status": status, "peer": self.client_address[1]}
            open(path_of("requests"), "a").write(json.dumps(note) + "\n")
            state = {"leases": list(LEASES), "tokens": list(TOKENS)}
            open(path_of("state.new"), "w").write(json.dumps(state))
            os.rename(path_of("state.new"), path_of("state"))
        self.reply(mode, status, content)

    def reply(self, mode, status, content):
        behave = mode.get("behave")
        if behave == "hang":
            time.sleep(1000)
        while behave == "wait" and os.path.exists(path_of("mode")):
            time.sleep(0.05)
        text = json.dumps(content).encode() + b"\n" if content is not None else b""
        if behave == "garbage":
            text = b"\x00\xff<html>s3cret</html>"
        self.send_response(status)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", "application/json")
        for name, value in mode.get("headers", {}).items():
            self.send_header(name, value)
        if behave == "endless":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
            for _ in range(16384):
                self.wfile.write(piece)
            return
        length = 10**9 if behave == "long" else len(text)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if status != 204:
            self.wfile.write(text[:20] if behave == "cut" else text)
        if behave == "cut":
            self.close_connection = True
        if mode.get("close"):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass

    def finish_request(self, request, address):
        if CONTEXT:
            request = CONTEXT.wrap_socket(request, server_side=True)
        super().finish_request(request, address)


CONTEXT = None
if os.path.exists(path_of("cert.pem")):
    CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CONTEXT.load_cert_chain(path_of("cert.pem"), path_of("key.pem"))
server = Server(("127.0.0.1", int(SETTINGS.get("port", 0))), Handler)
open(path_of("port.new"), "w").write(str(server.server_address[1]))
os.rename(path_of("port.new"), path_of("port"))
server.serve_forever()
