#!/usr/bin/env python3
"""Writes tests/vectors/epochs.json: epochs as bytes, good and bad, made without any code of this repository.

DAG-CBOR is written by hand, the tokens come from tests/vectors/tinycloud.json. Needs `pip install blake3 pynacl`.
Deterministic: the same file every time.

  python3 scripts/vectors/epochs.py > tests/vectors/epochs.json

Bytes are lists of [hex, times], so that a body of megabytes takes a line.
"""
import base64
import json
import os
import struct

from blake3 import blake3
from nacl.signing import SigningKey

HERE = os.path.dirname(os.path.abspath(__file__))
TINYCLOUD = json.load(open(os.path.join(HERE, "../../tests/vectors/tinycloud.json")))
RAW, DAG_CBOR = 0x55, 0x71
FLOAT_ONE = b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"


class Raw(bytes):
    """CBOR as it is."""


class Link:
    def __init__(self, codec, data):
        self.cid = bytes([1, codec, 0x1E, 32]) + blake3(data).digest()

    def __str__(self):
        return "b" + base64.b32encode(self.cid).decode().lower().rstrip("=")


def head(major, number):
    for limit, extra, form in ((24, None, None), (1 << 8, 24, ">B"), (1 << 16, 25, ">H"), (1 << 32, 26, ">I")):
        if number < limit:
            return bytes([major << 5 | (number if extra is None else extra)]) + (struct.pack(form, number) if form else b"")
    return bytes([major << 5 | 27]) + struct.pack(">Q", number)


def cbor(value):
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, Link):
        return b"\xd8\x2a" + cbor(b"\x00" + value.cid)
    return members(sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode())))


def members(items):
    return head(5, len(items)) + b"".join(cbor(key) + cbor(value) for key, value in items)


def key(number):
    return SigningKey(bytes([number]) * 32)


def did_key(signer):
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(b"\xed\x01" + bytes(signer.verify_key), "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = alphabet[rest] + text
    return "did:key:z" + text


OWNER = key(1)
KEY_SPACE = f"tinycloud:{did_key(OWNER)[4:]}:default"
PKH_SPACE = TINYCLOUD["space_id"]
CACAO = bytes.fromhex(TINYCLOUD["host_delegation"]["bytes_hex"])
SESSION = bytes.fromhex(TINYCLOUD["session_delegation"]["bytes_hex"])
JWT = TINYCLOUD["bob_delegation"]["header"].encode()


def event(token, values=()):
    return {"token": token, "values": list(values)}


def value(data, meta=None):
    return {"blob": Link(RAW, data), "size": len(data), "meta": meta or {}}


def header(signer=OWNER, **changes):
    return {
        "v": 1,
        "space": KEY_SPACE,
        "host": bytes(signer.verify_key),
        "proof": None,
        "incarnation": bytes(range(8)),
        "n": 0,
        "prev": None,
        "parents": [],
        "seq": 1_700_000_000_000 << 16,
        **changes,
    }


def parents(count):
    return sorted((Link(DAG_CBOR, b"parent %d" % i) for i in range(count)), key=lambda link: link.cid)


def pieces(data):
    """[hex, times], with long runs of one byte taken together."""
    out, at = [], 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        if end - at >= 64:
            out.append([data[at : at + 1].hex(), end - at])
        elif out and out[-1][1] == 1:
            out[-1][0] += data[at:end].hex()
        else:
            out.append([data[at:end].hex(), 1])
        at = end
    return out


def signed(name, head_, body, signer=OWNER, body_pieces=None, **told):
    text = cbor({**head_, "body": Link(DAG_CBOR, body)}) if isinstance(head_, dict) else head_(Link(DAG_CBOR, body))
    signature = signer.sign(b"kvspace epoch 1\n" + text).signature
    return {
        "name": name,
        "seed": bytes(signer)[:32].hex(),
        "header": pieces(text),
        "body": body_pieces or pieces(body),
        "signature": signature.hex(),
        "id": str(Link(DAG_CBOR, text)),
        **told,
    }


def good():
    host = key(2)
    three = parents(3)
    events = [
        event(SESSION),
        event(JWT, [value(b""), value(b"hello", {"content-type": "text/plain", "x-tinycloud-meta-\u00e9": "\u00fc", "a": ""})]),
        event(b""),
    ]
    yield "the owner's own first epoch", header(), [event(CACAO)], OWNER
    yield "a named host on a chain, with parents, values and headers", header(
        host,
        space=PKH_SPACE,
        proof=Link(RAW, CACAO),
        n=300,
        prev=Link(DAG_CBOR, b"prev"),
        parents=three,
        seq=(1_700_000_000_000 << 16) + 0xFFFF,
    ), events, host
    yield "64 parents", header(parents=parents(64)), [event(CACAO)], OWNER
    yield "the greatest numbers", header(n=2**64 - 1, prev=Link(DAG_CBOR, b"prev"), seq=2**64 - 1), [
        event(JWT, [{**value(b"x"), "size": 2**64 - 1}])
    ], OWNER
    yield "the smallest numbers", header(seq=0), [event(JWT, [value(b"x", {"": ""})])], OWNER


def bad():
    events, plain = [event(CACAO)], cbor([event(CACAO)])
    one = signed("", header(), plain)

    def changed(**changes):
        return header(**changes)

    def items(change):
        def make(body):
            found = sorted({**header(), "body": body}.items(), key=lambda item: (len(item[0]), item[0]))
            return members(change(found))

        return make

    def replaced(name, raw):
        return items(lambda found: [(k, Raw(raw) if k == name else v) for k, v in found])

    def case(name, why, head_, body=plain, **told):
        return signed(name, head_, body, why=why, **told)

    yield case("a header with a member more", "Decode", changed(more=1))
    yield case("a header with a member less", "Decode", items(lambda found: [m for m in found if m[0] != "seq"]))
    yield case("a header with a member twice", "Decode", items(lambda found: found[:2] + found[1:]))
    yield case("members in another order", "any", items(lambda found: found[::-1]))
    yield case("an integer longer than needed", "any", replaced("n", b"\x18\x00"))
    yield case("the version longer than needed", "any", replaced("v", b"\x18\x01"))
    yield case("a float for seq", "Decode", replaced("seq", FLOAT_ONE))
    yield case("a float for the version", "Decode", replaced("v", FLOAT_ONE))
    yield case("a negative seq", "Decode", replaced("seq", b"\x20"))
    yield case("a text of indefinite length", "any", replaced("space", b"\x7f" + cbor(KEY_SPACE) + b"\xff"))
    yield case("undefined for null", "any", replaced("prev", b"\xf7"))
    yield case("a byte behind the header", "Decode", items(lambda found: found[:-1] + [(found[-1][0], Raw(cbor(found[-1][1]) + b"\x00"))]))
    yield case("a host key of 31 bytes", "Decode", changed(host=bytes(31)))
    yield case("an incarnation of 9 bytes", "Decode", changed(incarnation=bytes(9)))
    yield case("a proof that is no link to raw bytes", "Decode", changed(proof=Link(DAG_CBOR, b"x")))
    yield case("a parent that is no epoch", "Decode", changed(parents=[Link(RAW, b"x")]))
    yield case("an array for the header", "Decode", lambda body: cbor([1, body]))
    yield case("deep nesting", "any", lambda body: members([("v", 1), ("x", Raw(b"\x81" * 4000 + b"\x00"))]))
    yield case("another spelling of the space", "Decode", changed(space=PKH_SPACE.lower()))
    yield case("another version", "UnknownVersion", changed(v=2))
    yield case("another version with other members", "UnknownVersion", lambda body: cbor({"v": 7, "new": [1, {"deep": None}]}))
    yield case("another version beyond our sizes", "UnknownVersion", changed(v=2, more=bytes(9000)))
    yield case("prev in a first epoch", "Shape", changed(prev=Link(DAG_CBOR, b"prev")))
    yield case("no prev in a later one", "Shape", changed(n=1))
    yield case("prev among the parents", "Shape", changed(n=1, prev=parents(2)[0], parents=parents(2)))
    yield case("parents out of order", "Shape", changed(parents=parents(3)[::-1]))
    yield case("a parent twice", "Shape", changed(parents=parents(1) * 2))
    yield case("65 parents", "TooLarge", changed(parents=parents(65)))
    yield case("a header beyond the size", "TooLarge", changed(more=bytes(8192)))
    yield case("no events", "Shape", header(), cbor([]))
    many = cbor(event(b""))
    yield case("4097 events", "TooLarge", header(), cbor([event(b"")] * 4097), body_pieces=[[head(4, 4097).hex(), 1], [many.hex(), 4097]])
    yield case("a token of 65537 bytes", "TooLarge", header(), cbor([event(bytes(65537))]))
    yield case("stored headers of 8193 bytes", "TooLarge", header(), cbor([event(JWT, [value(b"x", {"a": "b" * 8192})])]))
    large = cbor(event(bytes(65536)))
    yield case("a body beyond the size", "TooLarge", header(), cbor([event(bytes(65536))] * 64),
               body_pieces=[[head(4, 64).hex(), 1]] + pieces(large) * 64)
    yield case("an event with a member more", "Decode", header(), cbor([{**events[0], "kind": 1}]))
    yield case("a value without size", "Decode", header(), cbor([event(JWT, [{"blob": Link(RAW, b"x"), "meta": {}}])]))
    yield case("a header of a value twice", "any", header(), cbor(
        [event(JWT, [{**value(b"x"), "meta": Raw(members([("a", "1"), ("a", "2")]))}])]))
    yield case("headers of a value in another order", "any", header(), cbor(
        [event(JWT, [{**value(b"x"), "meta": Raw(members([("b", "1"), ("a", "2")]))}])]))
    yield case("a blob that is no raw link", "Decode", header(), cbor([event(JWT, [{**value(b"x"), "blob": Link(DAG_CBOR, b"x")}])]))
    yield case("a token as text", "Decode", header(), cbor([event("token")]))
    yield case("bytes behind the body", "Decode", header(), plain + b"\x00")
    yield {**one, "name": "another body", "why": "Body", "body": pieces(cbor([event(JWT)]))}
    flipped = bytearray(bytes.fromhex(one["signature"]))
    flipped[7] ^= 1
    yield {**one, "name": "a flipped bit of the signature", "why": "Signature", "signature": flipped.hex()}
    other = signed("", header(), plain, signer=key(3))
    yield {**one, "name": "the signature of another key", "why": "Signature", "signature": other["signature"]}
    # The order of the group added to s: the same point equation, another spelling.
    order = 2**252 + 27742317777372353535851937790883648493
    raw = bytes.fromhex(one["signature"])
    spelled = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    yield {**one, "name": "another spelling of the signature", "why": "Signature", "signature": spelled.hex()}
    bare = OWNER.sign(cbor({**header(), "body": Link(DAG_CBOR, plain)})).signature
    yield {**one, "name": "a signature without its context", "why": "Signature", "signature": bare.hex()}
    small = bytes([1] + [0] * 31)
    text = cbor({**header(), "host": small, "body": Link(DAG_CBOR, plain)})
    yield {**one, "name": "a host key of small order", "why": "Signature", "header": pieces(text), "signature": (small + bytes(32)).hex()}


if __name__ == "__main__":
    valid = [
        signed(name, head_, cbor(events), signer, space=head_["space"], n=str(head_["n"]), seq=str(head_["seq"]),
               proof=str(head_["proof"]) if head_["proof"] else None,
               tokens=[e["token"].hex() for e in events])
        for name, head_, events, signer in good()
    ]
    write = lambda cases: ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    about = "made by scripts/vectors/epochs.py; bytes are [hex, times]"
    print(f'{{"about":{json.dumps(about)},"good":[\n{write(valid)}\n],"bad":[\n{write(bad())}\n]}}')
