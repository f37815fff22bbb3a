#!/usr/bin/env python3
"""Makes the vectors of this directory anew: runs OpenSSH's programs, and writes down what they say to OpenSSH's
agent and what it answers. Needs openssh-client and openssh-server, and a user called keyloan-test who runs it. The
keys are made for this and are worth nothing. Usage: record.py DIRECTORY
"""

import base64
import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

KINDS = {
    5: "failure", 6: "success", 9: "obsolete", 11: "list", 12: "identities", 13: "sign", 14: "signature", 17: "add",
    18: "remove", 19: "remove-all", 20: "add-token", 22: "lock", 23: "unlock", 25: "add-constrained",
    26: "add-token-constrained", 27: "extension", 28: "extension-failure", 29: "extension-response",
}  # fmt: skip
OUT = pathlib.Path(sys.argv[1])
TEMPORARY = tempfile.TemporaryDirectory(prefix="record-")
HOME = pathlib.Path(TEMPORARY.name)
USER = "keyloan-test"
PORT = 47123
ENV = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(HOME), "SSH_ASKPASS": "/bin/true"}
SSH_KEYGEN = ["ssh-keygen", "-q"]
label = None
written = set()


def string(data):
    return struct.pack(">I", len(data)) + data


def fields(data, count):
    """The first strings, and what follows them."""
    found = []
    for _ in range(count):
        length = struct.unpack(">I", data[:4])[0]
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found, data


def read_frame(stream):
    prefix = stream.read(4)
    return prefix and prefix + stream.read(struct.unpack(">I", prefix)[0])


def write_down(frame):
    kind = KINDS[frame[4]]
    if frame[4] in (17, 25) and b"-cert-v01@openssh.com" in frame[5:64]:
        kind += "-certificate"
    if label is None or frame in written:
        return
    written.add(frame)
    names = (f"{label}.{kind}{suffix}.bin" for suffix in ["", "-2", "-3", "-4", "-5", "-6"])
    (OUT / next(name for name in names if not (OUT / name).exists())).write_bytes(frame)


def relay(client, agent):
    with client, agent, client.makefile("rwb") as asking, agent.makefile("rwb") as answering:
        while request := read_frame(asking):
            write_down(request)
            answering.write(request)
            answering.flush()
            reply = read_frame(answering)
            write_down(reply)
            asking.write(reply)
            asking.flush()


def recorder(path, agent_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve():
        while True:
            client, _ = listener.accept()
            agent = socket.socket(socket.AF_UNIX)
            agent.connect(agent_path)
            threading.Thread(target=relay, args=(client, agent), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def run(*command, stdin="", name=None, may_fail=False):
    global label
    label = name
    done = subprocess.run(command, cwd=HOME, env=ENV, input=stdin, text=True, capture_output=True, timeout=60)
    label = None
    if done.returncode and not may_fail:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def send(name, message):
    """What OpenSSH's programs do not say, or not in every version."""
    global label
    label = name
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(ENV["SSH_AUTH_SOCK"])
        client.sendall(string(message))
        with client.makefile("rb") as stream:
            read_frame(stream)
    label = None


@contextlib.contextmanager
def started(*command):
    process = subprocess.Popen(command, cwd=HOME, env=ENV)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def blob(name):
    return base64.b64decode((HOME / f"{name}.pub").read_text().split()[1])


def scalar(name):
    """The private number in the file of an ECDSA key: PROTOCOL.key."""
    text = (HOME / name).read_text().splitlines()
    data = base64.b64decode("".join(text[1:-1])).removeprefix(b"openssh-key-v1\0")
    _, rest = fields(data, 3)
    (_, private), _ = fields(rest[4:], 2)
    return fields(private[8:], 4)[0][3]


def make_key(name, *options):
    run(*SSH_KEYGEN, "-N", "", "-C", f"{name} of a vector", "-f", name, *options)


def make_ecdsa(name, bits, longest):
    """Until the scalar is so short that it is written with fewer bytes than its curve has."""
    while True:
        make_key(name, "-t", "ecdsa", "-b", str(bits))
        if len(scalar(name)) <= longest:
            return
        (HOME / name).unlink()


def make_sk(name, key_type, public):
    """A key of a security key without the security key: PROTOCOL.u2f."""
    application, handle = string(b"ssh:"), string(bytes(range(64)))
    public = string(key_type) + public + application
    private = bytes(8) + public + b"\x01" + handle + string(b"") + string(f"{name} of a vector".encode())
    private += bytes(range(1, 1 + -len(private) % 8))
    none = string(b"none")
    data = b"openssh-key-v1\0" + none + none + string(b"") + struct.pack(">I", 1) + string(public) + string(private)
    text = base64.encodebytes(data).decode()
    (HOME / name).write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n")
    (HOME / name).chmod(0o600)
    (HOME / f"{name}.pub").write_text(f"{key_type.decode()} {base64.b64encode(public).decode()} {name}\n")


KEYS = ["ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa", "sk-ed25519", "sk-ecdsa"]
SHORT = ["ecdsa-256-short", "ecdsa-384-short", "ecdsa-521-short"]


def make_keys():
    make_key("ed25519", "-t", "ed25519")
    for bits, size in [(256, 32), (384, 48), (521, 66)]:
        make_key(f"ecdsa-{bits}", "-t", "ecdsa", "-b", str(bits))
        make_ecdsa(f"ecdsa-{bits}-short", bits, size - 1 - (bits == 521))
    make_key("rsa", "-t", "rsa", "-b", "2048")
    make_sk("sk-ed25519", b"sk-ssh-ed25519@openssh.com", blob("ed25519")[15:])
    make_sk("sk-ecdsa", b"sk-ecdsa-sha2-nistp256@openssh.com", blob("ecdsa-256")[23:])
    for kind in ["ed25519", "ecdsa", "rsa"]:
        make_key(f"host-{kind}", "-t", kind)
        make_key(f"authority-{kind}", "-t", kind)
    certify = [*SSH_KEYGEN, "-I", "a vector", "-n", f"{USER},root", "-z", "18446744073709551615"]
    run(*certify, "-s", "authority-ed25519", "-V", "always:forever", "ed25519.pub")
    for name in KEYS[1:] + SHORT:
        authority = "authority-ecdsa" if name == "rsa" else "authority-rsa"
        options = ["-O", "force-command=true", "-O", "source-address=127.0.0.0/8", "-O", "no-pty"]
        run(*certify, "-s", authority, "-V", "20200101:20991231", *options, f"{name}.pub")
    run(*SSH_KEYGEN, "-s", "authority-ed25519", "-I", "a host", "-h", "-n", "certified", "host-ed25519.pub")


def record_agent():
    run("ssh-add", "-l", name="empty", may_fail=True)
    for name in KEYS + SHORT:
        run("ssh-add", name, name=name)
    run("ssh-add", "-L", name="full")
    run("ssh-add", "-d", "ed25519.pub", name="plain")
    run("ssh-add", "-t", "3600", "ed25519", name="lifetime")
    run("ssh-add", "-c", "ecdsa-256", name="confirm")
    run("ssh-add", "-c", "-t", "1", "-H", "known_hosts", "-h", "alpha", "-h", "alpha>root@beta", "rsa", name="hops")
    run("ssh-add", "-x", stdin="not a secret\n" * 2, name="lock")
    run("ssh-add", "-X", stdin="not a secret\n", name="unlock")
    run("ssh-add", "-s", "/nowhere.so", stdin="1234\n", name="token", may_fail=True)
    run("ssh-add", "-t", "60", "-s", "/nowhere.so", stdin="1234\n", name="token", may_fail=True)
    run("ssh-add", "-T", "ecdsa-521.pub", name="test")
    run("ssh-add", "-D", name="everything")
    send("query", b"\x1b" + string(b"query"))
    forged = string(string(b"ssh-ed25519") + string(bytes(64)))
    bind = string(blob("host-ed25519")) + string(b"a session") + forged + b"\x01"
    send("forged-bind", b"\x1b" + string(b"session-bind@openssh.com") + bind)
    send("unknown-extension", b"\x1b" + string(b"lend@example.com") + b"\0anything")
    certificates = string(b"".join(string(blob(f"{name}-cert")) for name in ["rsa", "ecdsa-256"]))
    associated = b"\xff" + string(b"associated-certs-v00@openssh.com") + b"\x01" + certificates
    send("associated", b"\x1a" + string(b"/nowhere.so") + string(b"1234") + associated)


def record_signatures():
    for name, options in [("git", ["-n", "git"]), ("file", ["-n", "file", "-O", "hashalg=sha256"])]:
        run("ssh-keygen", "-Y", "sign", "-f", "ed25519.pub", *options, stdin="text\n", name=f"document-{name}")


def record_logins():
    def login(name, key, *options, command="true"):
        options = [part for option in options for part in ("-o", option)]
        base = ["ssh", "-F", "client", "-o", f"IdentityFile={HOME / key}", *options]
        run(*base, "certified" if "certified" in name else "plain", command, name=f"login-{name}")

    login("ed25519", "ed25519.pub", "HostKeyAlgorithms=ssh-ed25519")
    login("ecdsa", "ecdsa-521.pub", "HostKeyAlgorithms=ecdsa-sha2-nistp256")
    login("rsa-sha512", "rsa.pub", "HostKeyAlgorithms=rsa-sha2-512")
    login("rsa-sha256", "rsa.pub", "PubkeyAcceptedAlgorithms=rsa-sha2-256")
    login("rsa-sha1", "rsa.pub", "PubkeyAcceptedAlgorithms=ssh-rsa")
    login("unbound", "ecdsa-256.pub", "PubkeyAuthentication=unbound")
    login("certified-host", "ed25519.pub", "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com")
    login("certificate", "rsa-cert.pub")
    again = f"ssh -F {HOME / 'client'} -o IdentityFile={HOME / 'ed25519.pub'} plain true"
    login("forwarded", "ecdsa-256.pub", "ForwardAgent=yes", command=again)


def configure():
    hosts = [f"HostKey {HOME}/host-{kind}" for kind in ["ed25519", "ecdsa", "rsa"]]
    server = f"""
        Port {PORT}
        ListenAddress 127.0.0.1
        HostCertificate {HOME}/host-ed25519-cert.pub
        AuthorizedKeysFile {HOME}/authorized_keys
        TrustedUserCAKeys {HOME}/authority-ecdsa.pub
        PubkeyAcceptedAlgorithms +ssh-rsa
        PidFile none
        StrictModes no
        UsePAM no
    """
    (HOME / "server").write_text("\n".join(hosts) + server)
    client = f"""
        HostName 127.0.0.1
        Port {PORT}
        User {USER}
        UserKnownHostsFile {HOME}/known_hosts
        GlobalKnownHostsFile none
        IdentitiesOnly yes
        BatchMode yes
        Host certified
            HostKeyAlias certified
        Host plain
            HostKeyAlias plain
    """
    (HOME / "client").write_text(client)
    public = {path.stem: path.read_text() for path in HOME.glob("*.pub")}
    (HOME / "authorized_keys").write_text("".join(public[name] for name in KEYS + SHORT))
    own = [public[f"host-{kind}"] for kind in ["ed25519", "ecdsa", "rsa"]]
    plain = [f"{host} {key}" for host in ["plain", "alpha"] for key in own]
    certified = [f"@cert-authority {host} {public['authority-ed25519']}" for host in ["certified", "beta"]]
    (HOME / "known_hosts").write_text("".join(plain + certified))


def main():
    make_keys()
    configure()
    agent, ENV["SSH_AUTH_SOCK"] = str(HOME / "agent"), str(HOME / "recorder")
    log = str(HOME / "server.log")
    server = ["/usr/sbin/sshd", "-D", "-f", str(HOME / "server"), "-E", log]
    with started("ssh-agent", "-D", "-a", agent), started(*server):
        while not os.path.exists(agent) or "listening" not in pathlib.Path(log).read_text():
            time.sleep(0.05)
        recorder(ENV["SSH_AUTH_SOCK"], agent)
        record_agent()
        for name in ["ed25519", "ecdsa-256", "ecdsa-521", "rsa"]:
            run("ssh-add", name)
        record_signatures()
        record_logins()


main()
