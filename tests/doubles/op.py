#!/usr/bin/python3 -IS
"""A double of 1Password's program `op` 2: what keyloan uses of it, with the texts and the JSON of the real one. It keeps
its account in the directory `op-double` beside itself, and writes down there how it was called."""

import json
import os
import re
import signal
import stat
import sys
import time

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "op-double")
with open(os.path.join(HERE, "state.json"), encoding="utf-8") as file:
    STATE = json.load(file)
MODE = STATE.get("mode", "")
SIGNED_OUT = "You are not currently signed in. Please run `op signin --help` for instructions"
FAILURES = {
    "signed out": SIGNED_OUT,
    "signed out within": "could not read secret 'op://Work/gcp/key': error initializing client: " + SIGNED_OUT,
    "no accounts": "No accounts configured for use with 1Password CLI.",
    "session expired": "session expired, sign in to create a new session",
    "dismissed": "authorization prompt dismissed, please try again",
    "prompt timeout": "authorization timeout",
    "forbidden": "(403) Forbidden: You aren't authorized to perform this action.",
    "rate limited": "Too many requests. Your client has been rate-limited.",
    "unknown": "panic: s3cret",
}


def fail(message):
    sys.stderr.write("[ERROR] 2024/05/06 07:08:09 " + message + "\n")
    sys.exit(1)


def put(text):
    out = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    sys.stdout.buffer.write(out)
    sys.stdout.buffer.flush()


def note():
    mode = os.fstat(0).st_mode
    kinds = [(stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device")]
    call = {
        "argv": sys.argv[1:],
        "env": sorted(os.environ),
        "stdin": next((name for test, name in kinds if test(mode)), "other"),
        "pid": os.getpid(),
    }
    with open(os.path.join(HERE, "calls.jsonl"), "a", encoding="utf-8") as calls:
        calls.write(json.dumps(call) + "\n")


def arguments():
    flags, words, rest = {}, [], False
    known = ("account", "cache", "categories", "format", "vault", "version")
    for word in sys.argv[1:]:
        if rest or not word.startswith("-"):
            words.append(word)
        elif word == "--":
            rest = True
        else:
            name, _, value = word[2:].partition("=")
            if not word.startswith("--") or name not in known:
                fail("unknown flag: " + word)
            flags[name] = value
    return flags, words


FLAGS, WORDS = arguments()


def same(one, other):
    return one is not None and one.lower() == other.lower()


def vault_of(query):
    for vault in STATE["vaults"]:
        if vault["id"] == query or same(vault["name"], query):
            return vault
    fail(f'"{query}" isn\'t a vault in this account. Specify the vault with its ID or name.')


def item_of(vault, query, shown):
    found = [item for item in vault["items"] if item["id"] == query]
    found = found or [item for item in vault["items"] if same(item["title"], query)]
    found = found or [item for item in vault["items"] if query in item.get("domains", [])]
    if not found:
        fail(f'"{query}" isn\'t an item in the "{shown}" vault. Specify the item with its UUID, name, or domain.')
    if len(found) > 1:
        lines = [f'\t* for the item "{query}" in vault {vault["name"]}: {item["id"]}' for item in found]
        fail(f'More than one item matches "{query}". Try again and specify the item by its ID:\n' + "\n".join(lines))
    return found[0]


def resolved(reference):
    """https://developer.1password.com/docs/cli/secret-reference-syntax"""
    path, _, query = reference[len("op://") :].partition("?")
    parts = path.split("/")
    for part in parts:
        bad = re.search(r"[^A-Za-z0-9_. -]", part)
        if bad:
            fail(f"invalid secret reference '{reference}': invalid character in secret reference: '{bad[0]}'")
    if len(parts) not in (3, 4):
        fail(f"invalid secret reference '{reference}': too few '/': secret references should match "
             "op://<vault>/<item>[/<section>]/<field>")
    vault = vault_of(parts[0])
    item = item_of(vault, parts[1], parts[0])
    section = parts[2] if len(parts) == 4 else None
    for field in item["fields"]:
        within = field.get("section", {})
        inside = section is None or same(within.get("label"), section) or within.get("id") == section
        if inside and (same(field.get("label"), parts[-1]) or field["id"] == parts[-1]):
            if query == "attribute=otp" and field["type"] == "OTP":
                return field["totp"]
            if query == "ssh-format=openssh" and field["type"] == "SSHKEY":
                return field["ssh_formats"]["openssh"]["value"]
            if not query:
                return field.get("value", bytes.fromhex(field.get("bytes", "")).decode("utf-8", "surrogateescape"))
    fail(f"item '{parts[0]}/{parts[1]}' does not have a field '{parts[-1]}'")


def injected(template):
    """https://developer.1password.com/docs/cli/secrets-template-syntax"""
    pattern = r"\{\{ *(op://[^{}]*?) *\}\}|(?<![A-Za-z0-9+.\\-])(op://[A-Za-z0-9?_./-]+)|\$(\w+)"
    return re.sub(pattern, lambda found: os.environ.get(found[3], "") if found[3] else
                  resolved(found[1] or found[2]), template)


def in_json(item, vault, whole):
    kept = {name: item[name] for name in ("id", "title", "category")}
    kept["version"] = 1
    kept["vault"] = {"id": vault["id"], "name": vault["name"]}
    if whole:
        kept["fields"] = item["fields"]
    return kept


def main():
    note()
    for name in os.environ:
        if name != "OP_SERVICE_ACCOUNT_TOKEN" and re.match(r"OP_|.*PROXY$|SSL_", name, re.IGNORECASE):
            fail("this double was redirected by " + name)
    if "version" in FLAGS:
        return put(STATE.get("version", "2.30.3") + "\n")
    if MODE == "hanging" and WORDS[0] != "account":
        time.sleep(1000)
    token = os.environ.get("OP_SERVICE_ACCOUNT_TOKEN")
    if WORDS == ["account", "list"]:
        return put(json.dumps(STATE.get("accounts", [])) + "\n")
    if token is not None and token != STATE.get("token"):
        fail("(401) Unauthorized: You aren't authorized to perform this action.")
    if STATE.get("needs token") and token is None:
        fail(SIGNED_OUT)
    account = FLAGS.get("account")
    if account is not None and account not in [one["url"] for one in STATE["accounts"]]:
        fail(f'found no accounts for filter "{account}"')
    if MODE in FAILURES:
        fail(FAILURES[MODE])
    if MODE == "garbage":
        return put("garbage s3cret\n")
    if MODE == "silent":
        return None
    if MODE == "flood":
        block = b"s3cret\0" * 100000
        for _ in range(1_000_000_000 // len(block)):
            put(block)
        return None
    out = answer(token)
    if MODE == "dying":
        put(out[: len(out) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    put(out)
    return put(out) if MODE == "twice" else None


def answer(token):
    if WORDS == ["inject"]:
        template = sys.stdin.buffer.read().decode()
        return template if MODE == "not taken" else injected(template) + ("\n" if STATE.get("line end") else "")
    if WORDS == ["vault", "list"]:
        return json.dumps([{"id": vault["id"], "name": vault["name"]} for vault in STATE["vaults"]])
    if token is not None and "vault" not in FLAGS:
        fail("a vault query must be provided when this command is called by a service account")
    if WORDS == ["item", "list"]:
        vaults = [vault_of(FLAGS["vault"])] if "vault" in FLAGS else STATE["vaults"]
        kind = FLAGS.get("categories", "").upper().replace(" ", "_")
        items = [in_json(item, vault, False) for vault in vaults for item in vault["items"]]
        return json.dumps([item for item in items if kind in ("", item["category"])])
    if WORDS[:2] == ["item", "get"] and len(WORDS) == 3:
        vault = vault_of(FLAGS["vault"])
        return json.dumps(in_json(item_of(vault, WORDS[2], FLAGS["vault"]), vault, True))
    return fail("unknown command " + json.dumps(WORDS))


main()
