#!/usr/bin/env python3
"""Makes tests/vectors/tokens.json: golden capability tokens, by a second hand.

Nothing here shares code with the Rust crates: SIWE texts, ReCaps, CBOR, JWTs, CIDs and signatures are made with other
libraries from the description of the wire format. Keys and times are fixed and every signature is deterministic, so a
second run writes the same file.

    python3 -m venv .venv && . .venv/bin/activate
    pip install eth-account==0.14.0 PyNaCl==1.6.2 dag-cbor==0.3.3 blake3==1.0.11 base58==2.1.1
    python3 scripts/vectors/tokens.py            # writes the file
    python3 scripts/vectors/tokens.py --check    # fails if the file differs from what it would write

The file has `tokens`, each a header with the `outcome` it must have (`verifies`, `bad_signature`, or `refused` with the
start of the error as Rust's Debug prints it) and the fields it must decode to, and `coverage`: whether every capability
of `child` is covered by one of `parent`.
"""

import base64
import json
import math
import sys
from decimal import Decimal
from datetime import datetime
from pathlib import Path

import base58
import blake3
import dag_cbor
from eth_account import Account
from eth_account.messages import encode_defunct
from nacl.signing import SigningKey

OUT = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "tokens.json"
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
WORDS = "I further authorize the stated URI to perform the following actions on my behalf:"

OWNER = Account.from_key(bytes([0x11]) * 32)
STRANGER = Account.from_key(bytes([0x22]) * 32)
ISSUED_AT = "2026-01-01T00:00:00.000Z"
EXPIRY = 4070908800


def hash_of(data):
    return blake3.blake3(data).digest()


def by_bytes(cids):
    """Ascending by the bytes of the CID, which is not the order of its base32 text."""
    return sorted(cids, key=unb32)


def unb32(cid):
    return base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))


def cid_bytes(data, codec=0x55):
    return bytes([1, codec, 0x1E, 32]) + hash_of(data)


def b32(raw):
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


def b58(raw):
    return "z" + base58.b58encode(raw).decode()


def b16(raw):
    return "f" + raw.hex()


def b64u(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    """An Ed25519 key with its did:key."""

    def __init__(self, byte):
        self.key = SigningKey(bytes([byte]) * 32)
        self.public = bytes(self.key.verify_key)
        self.did = "did:key:" + b58(b"\xed\x01" + self.public)
        self.url = self.did + "#" + self.did[len("did:key:") :]


HOST, SESSION, BOB = Key(0x31), Key(0x32), Key(0x33)


def pkh(account, chain=1):
    return f"did:pkh:eip155:{chain}:{account.address}"


def space(account, name="default", chain=1):
    return f"tinycloud:{pkh(account, chain)[4:]}:{name}"


SPACE = space(OWNER)
EPOCHS = [b32(cid_bytes(text, 0x71)) for text in (b"epoch 1", b"epoch 2", b"epoch 3")]
BLOB = b"hello, independent generator"


# ---- SIWE and CACAO -------------------------------------------------------------------------------------------------


def words(att):
    number, text = 0, WORDS
    for resource in sorted(att):
        by_namespace = {}
        for ability in att[resource]:
            namespace, name = ability.split("/")
            by_namespace.setdefault(namespace, []).append(name)
        for namespace in sorted(by_namespace):
            number += 1
            names = ", ".join(f"'{name}'" for name in sorted(by_namespace[namespace]))
            text += f" ({number}) '{namespace}': {names} for '{resource}'."
    return text


def recap(att, proofs, caveats=None):
    full = {r: {a: ([{}] if caveats is None else caveats) for a in abilities} for r, abilities in att.items()}
    text = json.dumps({"att": full, "prf": proofs}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "urn:recap:" + b64u(text.encode())


def siwe_text(p):
    _, _, _, chain, address = p["iss"].split(":")
    lines = [f"{p['domain']} wants you to sign in with your Ethereum account:", address, ""]
    if "scheme" in p:
        lines[0] = p["scheme"] + "://" + lines[0]
    if "statement" in p:
        lines.append(p["statement"])
    lines += ["", f"URI: {p['aud']}", f"Version: {p['version']}", f"Chain ID: {chain}", f"Nonce: {p['nonce']}"]
    lines.append(f"Issued At: {p['iat']}")
    for member, label in (("exp", "Expiration Time"), ("nbf", "Not Before"), ("request_id", "Request ID")):
        if member in p:
            lines.append(f"{label}: {p[member]}")
    if p.get("resources"):
        lines.append("Resources:")
        lines += [f"- {resource}" for resource in p["resources"]]
    return "\n".join(lines)


def siwe(aud, att=None, proofs=(), account=OWNER, chain=1, statement=None, before=(), recap_resource=None, **more):
    """The payload of a CACAO."""
    p = {"aud": aud, "iat": ISSUED_AT, "iss": pkh(account, chain), "nonce": "nonce00000000001"}
    p |= {"domain": "app.example", "version": 1}
    resources = list(before)
    if att is not None:
        resources.append(recap_resource or recap(att, list(proofs)))
        statement = (statement + " " if statement else "") + words(att)
    if statement is not None:
        p["statement"] = statement
    if resources:
        p["resources"] = resources
    return {k: v for k, v in (p | more).items() if v is not None}


def wallet_sign(p, account=OWNER):
    return bytes(account.sign_message(encode_defunct(text=siwe_text(p))).signature)


def cacao_bytes(p, signature, h="eip4361", t="eip191"):
    return dag_cbor.encode({"h": {"t": h}, "p": p, "s": {"s": signature, "t": t}})


def millis_rfc3339(text):
    seconds = datetime.fromisoformat(text.replace("Z", "+00:00"))
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    delta = seconds - epoch
    return (delta.days * 86_400_000_000 + delta.seconds * 1_000_000 + delta.microseconds) // 1000


# ---- UCAN -----------------------------------------------------------------------------------------------------------


def jwk(key):
    return {"alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": b64u(key.public)}


def header(key, **change):
    return {"alg": "EdDSA", "jwk": jwk(key), "typ": "JWT", "ucv": "0.10.0"} | change


def payload(key, aud, att, exp=EXPIRY, **more):
    """The claims as JSON text would order them; `exp` and `nbf` may be text, written as it is."""
    claims = {"iss": key.url, "aud": aud, "exp": exp, "prf": [], "att": grants(att)}
    return {k: v for k, v in (claims | more).items() if v is not None}


def grants(att):
    return {
        r: {a: [{}] for a in abilities} if isinstance(abilities, list) else abilities for r, abilities in att.items()
    }


class Raw(str):
    """JSON that is written as it stands."""


def dump(value):
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def jwt(key, head, claims):
    head = head if isinstance(head, str) else dump(head)
    claims = claims if isinstance(claims, str) else dump(claims)
    signed = f"{b64u(head.encode())}.{b64u(claims.encode())}"
    return f"{signed}.{b64u(key.key.sign(signed.encode()).signature)}"


def millis_seconds(number):
    return math.floor(Decimal(str(number)) * 1000)


# ---- the file -------------------------------------------------------------------------------------------------------

TOKENS = []


def keep(name, header_text, outcome="verifies", error=None, **fields):
    entry = {"name": name, "outcome": outcome, "header": header_text}
    if error is not None:
        entry["error"] = error
    TOKENS.append(entry | fields)
    return entry


def capabilities(att):
    out = []
    for resource in sorted(att, key=str.encode):
        for ability in sorted(att[resource], key=str.encode):
            out.append([resource, ability])
    return out


def keep_cacao(
    name, p, account=OWNER, signature=None, outcome="verifies", role="delegation", att=None, proofs=(), after=None
):
    signature = signature or wallet_sign(p, account)
    data = cacao_bytes(p, signature)
    text = siwe_text(p)
    keep(
        name,
        base64.urlsafe_b64encode(data).decode(),
        outcome,
        siwe=text,
        address=b32(cid_bytes(data)),
        identity=hash_of(text.encode()).hex(),
        role=role,
        issuer=p["iss"],
        audience=p["aud"].split("#")[0],
        capabilities=capabilities(att or {}),
        proofs=list(proofs),
        not_before=millis_rfc3339(p["nbf"]) if "nbf" in p else None,
        expiry=millis_rfc3339(p["exp"]) if "exp" in p else None,
        terminal=False,
        after={name: by_bytes(epochs) for name, epochs in (after or {}).items()},
        content=None,
    )
    return b32(cid_bytes(data))


def refuse_cacao(name, error, p, signature=None, **parts):
    data = cacao_bytes(p, signature or bytes(65), **parts)
    keep(name, base64.urlsafe_b64encode(data).decode(), "refused", error)


def keep_ucan(name, key, claims, head=None, role="invocation", proofs=(), terminal=False, after=None, content=None):
    text = jwt(key, head or header(key), claims)
    att = claims["att"]
    keep(
        name,
        text,
        address=b32(cid_bytes(text.encode())),
        identity=hash_of(text.rsplit(".", 1)[0].encode()).hex(),
        role=role,
        issuer=key.did,
        audience=claims["aud"].split("#")[0],
        capabilities=capabilities(att),
        proofs=list(proofs),
        not_before=millis_seconds(claims["nbf"]) if "nbf" in claims else None,
        expiry=millis_seconds(claims["exp"]),
        terminal=terminal,
        after=after or {},
        content=content,
    )
    return b32(cid_bytes(text.encode()))


def refuse_ucan(name, error, claims, key=SESSION, head=None):
    keep(name, jwt(key, head or header(key), claims), "refused", error)


KV = ["tinycloud.kv/put", "tinycloud.kv/get", "tinycloud.kv/list", "tinycloud.kv/del", "tinycloud.kv/metadata"]
SESSION_ATT = {f"{SPACE}/kv": KV, f"{SPACE}/capabilities/all": ["tinycloud.capabilities/read"]}


def cacaos():
    host_att = {f"{SPACE}/space": ["tinycloud.space/host"]}
    keep_cacao("cacao/host", siwe(HOST.did, host_att), att=host_att)
    other = {f"{space(OWNER, 'photos', 10)}/space": ["tinycloud.space/host"]}
    keep_cacao("cacao/host other space and chain", siwe(HOST.did, other, chain=10), att=other)
    session = keep_cacao(
        "cacao/session",
        siwe(
            SESSION.url, SESSION_ATT, statement="Sign in to the example.", exp="2099-12-31T23:59:59.000Z", nbf=ISSUED_AT
        ),
        att=SESSION_ATT,
    )
    narrow = {f"{SPACE}/kv/docs": ["tinycloud.kv/get", "tinycloud.kv/list"]}
    keep_cacao("cacao/narrow", siwe(SESSION.url, narrow, exp="2099-12-31T23:59:59.000Z"), att=narrow)
    both = {f"{SPACE}/kv": ["tinycloud.kv/get", "other.ns/x", "other/y"], f"{SPACE}/kv/a": ["tinycloud.kv/put"]}
    keep_cacao("cacao/namespaces", siwe(SESSION.url, both), att=both)
    keep_cacao(
        "cacao/offset times",
        siwe(SESSION.url, narrow, exp="2030-01-01T02:00:00.123987+02:00", nbf="2026-01-01T00:00:00Z"),
        att=narrow,
    )
    keep_cacao("cacao/before 1970", siwe(SESSION.url, narrow, nbf="1969-12-31T23:59:59.9995Z"), att=narrow)
    keep_cacao("cacao/sign-in only", siwe("https://app.example/login", statement="Hello, wörld."))
    keep_cacao(
        "cacao/bare",
        siwe("https://app.example/login", request_id="req-1", scheme="https", before=["https://app.example/terms"]),
    )
    network = {f"urn:tinycloud:encryption:{pkh(OWNER)}:default": ["tinycloud.encryption/decrypt"]} | narrow
    keep_cacao("cacao/encryption network", siwe(SESSION.url, network), att=network)
    proof = cid_bytes(b"a parent")
    keep_cacao(
        "cacao/with proofs", siwe(SESSION.url, narrow, proofs=[b58(proof), b58(proof)]), att=narrow, proofs=[b32(proof)]
    )
    photos = space(OWNER, "photos")
    marks = [
        f"{SPACE}/after/{EPOCHS[2]}",
        f"{photos}/after/{EPOCHS[1]}",
        f"{SPACE}/after/{EPOCHS[0]}",
        f"{SPACE}/after/{EPOCHS[0]}",
    ]
    after = {SPACE: [EPOCHS[0], EPOCHS[2]], photos: [EPOCHS[1]]}
    keep_cacao("cacao/session after", siwe(SESSION.url, narrow, before=marks), att=narrow, after=after)
    target = {"revocation": session}
    keep_cacao("cacao/revocation", siwe(f"ucan:{session}", statement="Revoke."), role=target)
    keep_cacao("cacao/revocation after", siwe(f"ucan:{session}", before=marks), role=target, after=after)
    keep_cacao("cacao/revocation in base58", siwe(f"ucan:{b58(unb32(session))}"), role=target)

    p = siwe(SESSION.url, narrow)
    signature = wallet_sign(p)
    r, s, v = signature[:32], signature[32:64], signature[64]
    high = (SECP256K1_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    keep_cacao("cacao/v 0 or 1", p, signature=r + s + bytes([v - 27]), att=narrow)
    for bad in (v - 27 + 2, v + 2, v + 27, 255):
        keep_cacao(f"cacao/v {bad}", p, signature=r + s + bytes([bad]), outcome="bad_signature", att=narrow)
    keep_cacao("cacao/other v", p, signature=r + s + bytes([55 - v]), outcome="bad_signature", att=narrow)
    keep_cacao("cacao/high s", p, signature=r + high + bytes([55 - v]), outcome="bad_signature", att=narrow)
    keep_cacao("cacao/high s, same v", p, signature=r + high + bytes([v]), outcome="bad_signature", att=narrow)
    keep_cacao("cacao/zero signature", p, signature=bytes(64) + b"\x1b", outcome="bad_signature", att=narrow)
    keep_cacao("cacao/stranger", p, account=STRANGER, outcome="bad_signature", att=narrow)
    other_domain = p | {"domain": "evil.example"}
    keep_cacao("cacao/other domain", other_domain, signature=signature, outcome="bad_signature", att=narrow)
    return session


def refused_cacaos():
    att = {f"{SPACE}/kv/docs": ["tinycloud.kv/get"]}
    p = siwe(SESSION.url, att)
    good = base64.urlsafe_b64encode(cacao_bytes(p, wallet_sign(p))).decode()
    keep(
        "cacao/refused: standard alphabet",
        base64.b64encode(cacao_bytes(siwe(SESSION.url, att, nonce="nonce~~~"), b"\xff" * 65)).decode(),
        "refused",
        "Base64",
    )
    keep("cacao/refused: line feed", good + "\n", "refused", "Base64")
    keep(
        "cacao/refused: extra byte",
        base64.urlsafe_b64encode(cacao_bytes(p, wallet_sign(p)) + b"\0").decode(),
        "refused",
        "Cbor",
    )
    refuse_cacao("cacao/refused: header type", 'Field("h.t")', p, h="caip122")
    refuse_cacao("cacao/refused: signature type", 'Field("s.t")', p, t="eip1271")
    refuse_cacao("cacao/refused: signature of 64 bytes", "SignatureLength", p, signature=bytes(64))
    refuse_cacao("cacao/refused: unknown member", "Cbor", p | {"more": 1})
    refuse_cacao("cacao/refused: null member", "NotCanonical", p | {"exp": None})
    refuse_cacao("cacao/refused: empty resources", "NotCanonical", siwe(SESSION.url) | {"resources": []})
    refuse_cacao("cacao/refused: version 2", 'Field("version")', p | {"version": 2})
    refuse_cacao("cacao/refused: lower-case address", 'Field("iss")', p | {"iss": p["iss"].lower()})
    refuse_cacao("cacao/refused: issuer did:key", 'Field("iss")', p | {"iss": SESSION.did})
    refuse_cacao("cacao/refused: issuer fragment", 'Field("iss")', p | {"iss": p["iss"] + "#x"})
    refuse_cacao("cacao/refused: short nonce", 'Field("nonce")', p | {"nonce": "abc1234"})
    refuse_cacao("cacao/refused: nonce with a line", 'Field("nonce")', p | {"nonce": "abc12345\nIssued At: x"})
    refuse_cacao(
        "cacao/refused: statement with a line", 'Field("statement")', p | {"statement": "Hi.\n\nURI: x:y " + words(att)}
    )
    refuse_cacao("cacao/refused: empty statement", 'Field("statement")', siwe(SESSION.url, statement=""))
    refuse_cacao("cacao/refused: domain with a path", 'Field("domain")', p | {"domain": "app.example/x"})
    refuse_cacao("cacao/refused: audience with a line", 'Field("aud")', p | {"aud": "did:key:z\nVersion: 1"})
    refuse_cacao("cacao/refused: audience without scheme", 'Field("aud")', p | {"aud": "app.example"})
    refuse_cacao(
        "cacao/refused: resource with a space", 'Field("resources")', siwe(SESSION.url, att, before=["https://a b"])
    )
    refuse_cacao("cacao/refused: expiry without zone", 'Field("exp")', p | {"exp": "2030-01-01T00:00:00"})
    refuse_cacao("cacao/refused: expiry as a number", "Cbor", p | {"exp": EXPIRY})
    refuse_cacao("cacao/refused: issued on no date", 'Field("iat")', p | {"iat": "2026-02-30T00:00:00Z"})
    refuse_cacao(
        "cacao/refused: other words", "Statement", p | {"statement": words({f"{SPACE}/kv/docs": ["tinycloud.kv/list"]})}
    )
    refuse_cacao("cacao/refused: words and more", "Statement", p | {"statement": p["statement"] + " And no more."})
    refuse_cacao("cacao/refused: no words", "Statement", {k: v for k, v in p.items() if k != "statement"})
    refuse_cacao(
        "cacao/refused: recap not last", "RecapPlace", p | {"resources": p["resources"] + ["https://a.example"]}
    )
    refuse_cacao("cacao/refused: two recaps", "RecapPlace", p | {"resources": p["resources"] * 2})
    resource = f"{SPACE}/kv/docs"
    recaps = {
        "recap padded": ("Base64", recap(att, []) + "="),
        "recap with spaces": (
            "NotCanonical",
            "urn:recap:" + b64u(json.dumps({"att": {resource: {"tinycloud.kv/get": [{}]}}, "prf": []}).encode()),
        ),
        "recap out of order": (
            "NotCanonical",
            "urn:recap:" + b64u(f'{{"prf":[],"att":{{"{resource}":{{"tinycloud.kv/get":[{{}}]}}}}}}'.encode()),
        ),
        "recap names a resource twice": (
            "Json",
            "urn:recap:"
            + b64u(
                f'{{"att":{{"{resource}":{{"tinycloud.kv/get":[{{}}]}},"{resource}":{{"tinycloud.kv/get":[{{}}]}}}},"prf":[]}}'.encode()
            ),
        ),
        "recap with caveats": ("Caveats", recap(att, [], [{"limit": 1}])),
        "recap with no caveats object": ("Caveats", recap(att, [], [])),
        "recap with two caveats objects": ("Caveats", recap(att, [], [{}, {}])),
        "recap proof in base32": ("Proof", recap(att, [b32(cid_bytes(b"a parent"))])),
        "recap proof of no CID": ("Proof", recap(att, ["zzz"])),
        "recap is no JSON": ("Json", "urn:recap:" + b64u(b"{")),
    }
    for name, (error, text) in recaps.items():
        refuse_cacao(f"cacao/refused: {name}", error, siwe(SESSION.url, att, recap_resource=text))
    bad_ability = {resource: ["tinycloud.kv"]}
    text = recap(bad_ability, [])
    refuse_cacao("cacao/refused: ability without name", "Ability", siwe(SESSION.url, att, recap_resource=text))
    bad_mark = f"{SPACE}/after/{b32(cid_bytes(b'a blob'))}"
    refuse_cacao("cacao/refused: after a blob", 'Fact("kvspace/after")', siwe(SESSION.url, att, before=[bad_mark]))
    refuse_cacao("cacao/refused: revokes no CID", "RevocationTarget", siwe("ucan:session"))


def ucans(session):
    docs = {f"{SPACE}/kv/docs": ["tinycloud.kv/get"]}
    put = f"{SPACE}/kv/docs/a.txt"
    prf = [session]
    keep_ucan("ucan/delegation", SESSION, payload(SESSION, BOB.did, docs, prf=prf), role="delegation", proofs=prf)
    keep_ucan(
        "ucan/delegation to a fragment",
        SESSION,
        payload(SESSION, BOB.url, docs, prf=prf),
        role="delegation",
        proofs=prf,
    )
    widened = {f"{SPACE}/kv/doc": ["tinycloud.kv/get"], f"{SPACE}/kv/docs": ["tinycloud.kv/put"]}
    keep_ucan("ucan/widened delegation", BOB, payload(BOB, SESSION.did, widened), role="delegation")
    beneath = {f"{SPACE}/kv/docs": ["tinycloud.kv/get"], f"{SPACE}/kv/docs/x/y": ["tinycloud.kv/get"]}
    keep_ucan("ucan/narrowed delegation", BOB, payload(BOB, SESSION.did, beneath), role="delegation")
    terminal = [{"xyz.tinycloud.policy/delegationMode": "terminal"}]
    keep_ucan(
        "ucan/terminal",
        SESSION,
        payload(SESSION, BOB.did, docs, prf=prf, fct=terminal),
        role="delegation",
        proofs=prf,
        terminal=True,
    )
    keep_ucan(
        "ucan/terminal as one object",
        SESSION,
        payload(SESSION, BOB.did, docs, prf=prf, fct=terminal[0]),
        role="delegation",
        proofs=prf,
        terminal=True,
    )
    keep_ucan(
        "ucan/mode of another name",
        SESSION,
        payload(SESSION, BOB.did, docs, prf=prf, fct=[{"xyz.tinycloud.policy/delegationMode": "open"}, "text", 1]),
        role="delegation",
        proofs=prf,
    )
    invocation = {put: ["tinycloud.kv/get"]}
    keep_ucan(
        "ucan/invocation", SESSION, payload(SESSION, SESSION.did, invocation, prf=prf, nnc="urn:uuid:1"), proofs=prf
    )
    keep_ucan(
        "ucan/invocation to its own fragment", SESSION, payload(SESSION, SESSION.url, invocation, prf=prf), proofs=prf
    )
    keep_ucan(
        "ucan/issuer without fragment",
        SESSION,
        payload(SESSION, SESSION.did, invocation, iss=SESSION.did, prf=prf),
        proofs=prf,
    )
    keep_ucan(
        "ucan/no jwk",
        SESSION,
        payload(SESSION, SESSION.did, invocation),
        head={"alg": "EdDSA", "typ": "JWT", "ucv": "0.10.0"},
    )
    keep_ucan(
        "ucan/foreign jwk is not looked at",
        SESSION,
        payload(SESSION, SESSION.did, invocation),
        head=header(SESSION, jwk=jwk(BOB), kid=1),
    )
    keep_ucan(
        "ucan/unknown members",
        SESSION,
        payload(SESSION, SESSION.did, invocation, iat="x", more={"a": [1.5, None, True]}, fct=None),
    )
    batch = {
        put: ["tinycloud.kv/put", "tinycloud.kv/get"],
        f"{SPACE}/kv/": ["tinycloud.kv/list"],
        f"{SPACE}/kv": ["tinycloud.kv/delete"],
        "Z:other": ["a/b"],
    }
    keep_ucan("ucan/batch in byte order", SESSION, payload(SESSION, SESSION.did, batch))
    parent = cid_bytes(b"a parent")
    claims = payload(
        SESSION, SESSION.did, invocation, prf=[b58(parent), b16(cid_bytes(b"a parent", 0x71)), session, b32(parent)]
    )
    keep_ucan("ucan/proofs in any base, each once", SESSION, claims, proofs=[b32(parent), session])
    numbers = [
        "1700000000",
        "1700000000.5",
        "1700000000.1239",
        "1.7e9",
        "17E+8",
        "-1.0005",
        "-5",
        "0",
        "-0",
        "1e-9",
        "4070908800.0",
    ]
    for number in numbers:
        claims = payload(SESSION, SESSION.did, invocation, exp=Raw(number), nbf=Raw(number))
        keep_ucan(f"ucan/time {number}", SESSION, claims)
    content = {
        put: {"cid": b32(cid_bytes(BLOB)), "size": len(BLOB), "meta": {"content-type": "text/plain", "x-a": "é"}}
    }
    marks = [f"{SPACE}/after/{epoch}" for epoch in reversed(EPOCHS)]
    after = {SPACE: by_bytes(EPOCHS)}
    facts = [{"x": 1}, {"kvspace/content": content}, {"kvspace/after": marks}]
    write = payload(SESSION, SESSION.did, {put: ["tinycloud.kv/put"]}, nbf=1767225600, prf=prf, fct=facts)
    keep_ucan("ucan/write with content and after", SESSION, write, proofs=prf, content=content, after=after)
    one = {"kvspace/content": content, "kvspace/after": marks}
    keep_ucan("ucan/write with one fact", SESSION, write | {"fct": one}, proofs=prf, content=content, after=after)
    keep_ucan("ucan/facts null", SESSION, write | {"fct": Raw("null")}, proofs=prf)
    revoke = {f"urn:cid:{session}": ["tinycloud.delegation/revoke"]}
    target = {"revocation": session}
    other = b32(cid_bytes(b"another"))
    keep_ucan("ucan/revocation", SESSION, payload(SESSION, SESSION.did, revoke), role=target)
    keep_ucan(
        "ucan/revocation with a proof",
        SESSION,
        payload(SESSION, SESSION.did, revoke, prf=[other]),
        role=target,
        proofs=[other],
    )
    keep_ucan(
        "ucan/revocation after",
        SESSION,
        payload(SESSION, SESSION.did, revoke, fct=[{"kvspace/after": marks}]),
        role=target,
        after=after,
    )
    broad = {f"{SPACE}/delegation": ["tinycloud.delegation/revoke"]}
    keep_ucan(
        "ucan/revocation of its proof", SESSION, payload(SESSION, SESSION.did, broad, prf=prf), role=target, proofs=prf
    )
    keep_ucan("ucan/revocation of nothing", SESSION, payload(SESSION, SESSION.did, broad))
    keep_ucan("ucan/right to revoke handed on", SESSION, payload(SESSION, BOB.did, revoke), role="delegation")
    status = {f"urn:cid:{session}": ["tinycloud.delegation/status"]}
    keep_ucan("ucan/status is no revocation", SESSION, payload(SESSION, SESSION.did, status))
    mixed = {f"urn:cid:{other}": ["tinycloud.delegation/status"]} | revoke
    keep_ucan("ucan/revokes what it says to revoke", SESSION, payload(SESSION, SESSION.did, mixed), role=target)
    caveats = {f"{SPACE}/kv/docs": {"tinycloud.kv/get": [{"limit": 1}]}}
    keep_ucan("ucan/with caveats", SESSION, payload(SESSION, BOB.did, caveats), role="delegation")
    keep_ucan(
        "ucan/other key order",
        SESSION,
        dict(reversed(payload(SESSION, SESSION.did, invocation).items())),
        head=dict(reversed(header(SESSION).items())),
    )


def refused_ucans(session):
    att = {f"{SPACE}/kv/docs/a.txt": ["tinycloud.kv/put"]}
    claims = payload(SESSION, SESSION.did, att, prf=[session])
    for alg in ("none", "ES256", "ES256K", "RS256", "eddsa", "HS256"):
        refuse_ucan(f"ucan/refused: alg {alg}", 'Header("alg")', claims, head=header(SESSION, alg=alg))
    refuse_ucan("ucan/refused: ucv 0.9.0", 'Header("ucv")', claims, head=header(SESSION, ucv="0.9.0"))
    refuse_ucan("ucan/refused: typ", 'Header("typ")', claims, head=header(SESSION, typ="jwt"))
    for member in ("typ", "ucv", "alg"):
        head = {k: v for k, v in header(SESSION).items() if k != member}
        refuse_ucan(f"ucan/refused: no {member}", "Json", claims, head=head)
    refuse_ucan("ucan/refused: ucv as a number", "Json", claims, head=header(SESSION, ucv=0.1))
    refuse_ucan(
        "ucan/refused: alg twice", "Json", claims, head='{"alg":"none","typ":"JWT","ucv":"0.10.0","alg":"EdDSA"}'
    )
    refuse_ucan("ucan/refused: header is a list", "Json", claims, head='["JWT","0.10.0","EdDSA"]')
    text = dump(claims)
    refuse_ucan("ucan/refused: member twice", "Json", text[:-1] + ',"exp":1}')
    refuse_ucan("ucan/refused: member twice, escaped", "Json", text[:-1] + ',"\\u0065xp":1}')
    refuse_ucan("ucan/refused: member twice inside", "Json", text[:-1] + ',"x":[{"a":1,"a":1}]}')
    refuse_ucan("ucan/refused: deep", "Json", text[:-1] + ',"x":' + "[" * 200 + "]" * 200 + "}")
    refuse_ucan("ucan/refused: two values", "Json", text + "{}")
    refuse_ucan("ucan/refused: NaN", "Json", claims | {"exp": Raw("NaN")})
    refuse_ucan("ucan/refused: number out of range", "Json", claims | {"exp": Raw("1e400")})
    good = jwt(SESSION, header(SESSION), claims)
    head, body, signature = good.split(".")
    padded = lambda part: part + "=" * (-len(part) % 4)
    for name, text, error in (
        ("padded", f"{padded(head)}.{padded(body)}.{signature}==", "Base64"),
        ("standard alphabet", f"{head}.{body}.{'/' * 86}", "Base64"),
        ("two parts", f"{head}.{body}", "Parts"),
        ("four parts", f"{good}.", "Parts"),
        ("bearer", f"Bearer {good}", "Base64"),
        ("short signature", f"{head}.{body}.{b64u(bytes(63))}", "SignatureLength"),
        ("no signature", f"{head}.{body}.", "SignatureLength"),
        ("spare bits", good[:-1] + chr(ord(good[-1]) + 1), "Base64"),
    ):
        keep(f"ucan/refused: {name}", text, "refused", error)
    swapped = jwt(SESSION, header(SESSION), claims | {"exp": EXPIRY + 1}).rsplit(".", 1)[1]
    keep("ucan/signature of another", f"{head}.{body}.{swapped}", "bad_signature")
    keep("ucan/signed by another key", jwt(BOB, header(SESSION), claims), "bad_signature")
    for name, error, change in (
        ("no exp", "Json", {"exp": None}),
        ("exp as text", 'Field("exp")', {"exp": "4070908800"}),
        ("exp true", 'Field("exp")', {"exp": True}),
        ("nbf as text", 'Field("nbf")', {"nbf": "0"}),
        ("no issuer", "Json", {"iss": None}),
        ("issuer did:pkh", 'Field("iss")', {"iss": pkh(OWNER)}),
        ("issuer did:web", 'Field("iss")', {"iss": "did:web:example.com"}),
        ("issuer of another curve", 'Field("iss")', {"iss": "did:key:" + b58(b"\xe7\x01" + b"\2" * 33)}),
        ("issuer in another base", 'Field("iss")', {"iss": "did:key:" + b16(b"\xed\x01" + SESSION.public)}),
        ("issuer too long", 'Field("iss")', {"iss": "did:key:" + b58(b"\xed\x01" + SESSION.public + b"\0")}),
        ("audience no DID", 'Field("aud")', {"aud": "https://app.example"}),
        ("audience a list", "Json", {"aud": [SESSION.did]}),
        ("proof no CID", "Proof", {"prf": ["bafy"]}),
        ("proof of another hash", "Proof", {"prf": ["bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"]}),
        ("proofs null", "Json", {"prf": Raw("null")}),
        ("no att", "Json", {"att": None}),
        ("no caveats object", "Caveats", {"att": {"a:b": {"a/b": []}}}),
        ("caveats no array", "Json", {"att": {"a:b": {"a/b": {}}}}),
        ("caveats no objects", "Json", {"att": {"a:b": {"a/b": [1]}}}),
        ("ability without name", "Ability", {"att": {"a:b": {"a": [{}]}}}),
        ("ability with a space", "Ability", {"att": {"a:b": {"a/b c": [{}]}}}),
        ("facts as text", 'Field("fct")', {"fct": "text"}),
        ("revokes no CID", "RevocationTarget", {"att": {"urn:cid:x": {"tinycloud.delegation/revoke": [{}]}}}),
        ("content no map", 'Fact("kvspace/content")', {"fct": [{"kvspace/content": []}]}),
        (
            "content without size",
            'Fact("kvspace/content")',
            {"fct": [{"kvspace/content": {"a": {"cid": b32(cid_bytes(BLOB)), "meta": {}}}}]},
        ),
        (
            "content by place",
            'Fact("kvspace/content")',
            {"fct": [{"kvspace/content": {"a": [b32(cid_bytes(BLOB)), 1, {}]}}]},
        ),
        (
            "content of an epoch",
            'Fact("kvspace/content")',
            {"fct": [{"kvspace/content": {"a": {"cid": EPOCHS[0], "size": 1, "meta": {}}}}]},
        ),
        ("content twice", 'Fact("kvspace/content")', {"fct": [{"kvspace/content": {}}, {"kvspace/content": {}}]}),
        ("after no list", 'Fact("kvspace/after")', {"fct": [{"kvspace/after": EPOCHS[0]}]}),
        ("after a bare epoch", 'Fact("kvspace/after")', {"fct": [{"kvspace/after": [EPOCHS[0]]}]}),
        (
            "after a blob",
            'Fact("kvspace/after")',
            {"fct": {"kvspace/after": [f"{SPACE}/after/{b32(cid_bytes(BLOB))}"]}},
        ),
    ):
        changed = {k: v for k, v in (claims | change).items() if v is not None}
        refuse_ucan(f"ucan/refused: {name}", error, changed)
    keep("ucan/refused: too long", jwt(SESSION, header(SESSION), claims | {"x": "y" * 50_000}), "refused", "TooLong")
    keep("refused: nothing", "", "refused", "Cbor")


def coverage():
    pairs = [
        ("cacao/session", "cacao/narrow", True),
        ("cacao/session", "ucan/invocation", True),
        ("cacao/session", "ucan/write with content and after", True),
        ("cacao/session", "cacao/host", False),
        ("cacao/narrow", "ucan/invocation", True),
        ("cacao/narrow", "ucan/delegation", True),
        ("cacao/narrow", "cacao/session", False),
        ("cacao/narrow", "ucan/write with content and after", False),
        ("ucan/delegation", "ucan/narrowed delegation", True),
        ("ucan/delegation", "ucan/widened delegation", False),
        ("ucan/delegation", "ucan/with caveats", True),
        ("ucan/with caveats", "ucan/with caveats", True),
        ("ucan/with caveats", "ucan/delegation", False),
        ("cacao/host", "cacao/host other space and chain", False),
        ("cacao/encryption network", "cacao/encryption network", True),
    ]
    return [{"parent": parent, "child": child, "covered": covered} for parent, child, covered in pairs]


def main():
    session = cacaos()
    refused_cacaos()
    ucans(session)
    refused_ucans(session)
    names = [token["name"] for token in TOKENS]
    assert len(names) == len(set(names)), "every token has a name of its own"
    text = json.dumps({"tokens": TOKENS, "coverage": coverage()}, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if OUT.read_text() == text else f"{OUT} is not what this script makes")
    OUT.write_text(text)
    print(f"{len(TOKENS)} tokens")


if __name__ == "__main__":
    main()
