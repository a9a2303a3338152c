"""Tokens that prove nothing, of both kinds, made from a random generator; they also depend on the time.

One identity provider serves all functions that are tested by a process; `identity` starts it.
"""

import base64
import json
import random
import string
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests import signing
from tests.identity import Identity

TOKEN_MARK = b"mark-of-a-token"  # in every token that is not base64; the others begin with JSON_IN_BASE64
JSON_IN_BASE64 = b"eyJ"

_OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
_P384 = ec.generate_private_key(ec.SECP384R1())


@cache
def identity() -> Identity:
    """Return the identity provider, which publishes the key of `tests.signing`."""
    return Identity()


def sign(body: bytes, **changes: Any) -> bytes:
    """Return the token for `body`, as bytes; `changes` are those of `signing.sign`."""
    return signing.sign(body, **changes).encode()


def public_claims_of(body: bytes, **changes: Any) -> dict[str, Any]:
    """Return the claims of a public-key token for `body`; a change to None leaves a claim out."""
    return signing.public_claims_of(body, **({"iss": identity().issuer} | changes))


def public_sign(body: bytes, **changes: Any) -> bytes:
    """Return the public-key token for `body`; `changes` are those of `public_claims_of`."""
    return signing.public_token(public_claims_of(body, **changes)).encode()


# --- by secret ------------------------------------------------------------------------------------------------------


def _mutated(rng: random.Random, token: bytes) -> bytes:
    at = rng.randrange(len(token) - 1)  # of the last character, some bits mean nothing
    other = rng.choice([char for char in (string.ascii_letters + string.digits + "-_.é").encode() if char != token[at]])
    head, claims, signature = token.split(b".")
    tokens = [
        token[:at] + bytes([other]) + token[at + 1 :],
        token[:at] + token[at + 1 :],
        token[:at],
        token + b"." + signature,
        b".".join([claims, head, signature]),
        head + b"." + claims + b".",
        b"Bearer " + token,
        token + b"," + token,
        b'"' + token + b'"',
    ]
    return rng.choice(tokens)


def _confused_algorithm(rng: random.Random, body: bytes) -> bytes:
    digest = rng.choice(["sha256", "sha384", "sha512"])
    algorithms: list[Any] = ["none", "None", "NONE", "hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]
    algorithms += ["", None, 256, ["HS256"], {}]
    header = {"alg": rng.choice(algorithms), "typ": "JWT"}
    token = signing.token(signing.claims_of(body), header=header, digest=digest).encode()
    return rng.choice([token, token.rpartition(b".")[0] + b"."])


def _odd_jose_header(rng: random.Random, body: bytes) -> bytes:
    depth = rng.choice([10, 500, 5000])
    headers = [
        "[" * depth + "]" * depth,
        '{"alg":' * depth + '"HS256"' + "}" * depth,
        '{"alg":"HS256","alg":"none"}',
        '{"alg":"HS256","n":' + "9" * 5000 + "}",
        '{"alg":"HS256","kid":7}',
        '{"alg":"HS256","crit":["exp"],"exp":1}',
        '{"alg":"HS256","b64":false,"crit":["b64"]}',
        '{"typ":"JWT"}',
        '"HS256"',
        "null",
        "{",
        "",
    ]
    return signing.token(signing.claims_of(body), header=rng.choice(headers)).encode()


def _odd_claims(rng: random.Random, body: bytes) -> bytes:
    """Claims that are signed, but not valid."""
    now, depth = int(time.time()), rng.choice([10, 900, 5000, 9000])
    deep = "[" * depth + "]" * depth
    text = json.dumps(signing.claims_of(body))[:-1]
    times = ["null", "true", '"1"', "-1", "1e400", "1e13", "NaN", "9" * 5000, "9" * 400, "{}", deep, str(now - 60)]
    sums = ["null", "0", "true", '""', "[]", '"\\ud800"', deep, f'"{"0" * 64}"', "9" * 4000, '"' + "é" * 64 + '"']
    claims = [
        text + f',"exp":{rng.choice(times)}}}',
        text + f',"{rng.choice(["checksum", "checksum_sha256"])}":{rng.choice(sums)}}}',
        text + f',"{rng.choice(["iat", "nbf"])}":{now + 3600}}}',
        text + f',"{rng.choice(["iat", "nbf"])}":{rng.choice(times[:-1])}}}',
        json.dumps(signing.claims_of(body, checksum=None, checksum_sha256=None)),
        json.dumps(signing.claims_of(body, exp=None)),
        json.dumps([signing.claims_of(body)]),
        text,
        deep,
        "",
    ]
    return signing.token(rng.choice(claims)).encode()


def _junk_token(rng: random.Random, _body: bytes) -> bytes:
    junk = [
        bytes(rng.randrange(0x80, 0x100) for _ in range(rng.randrange(200))),
        b"." * rng.randrange(2000),
        base64.urlsafe_b64encode(rng.randbytes(rng.randrange(300))) + b"..",
        b"A" * rng.choice([100, 10_000, 60_000]) + b".A.A",
        b"=" * rng.randrange(20_000) + b".=.=",
    ]
    return TOKEN_MARK + rng.choice(junk)


TOKENS: dict[str, Callable[[random.Random, bytes], bytes | None]] = {
    "missing": lambda *_: None,
    "empty": lambda *_: b"",
    "mutated": lambda rng, body: _mutated(rng, sign(body)),
    "algorithm": _confused_algorithm,
    "header": _odd_jose_header,
    "claims": _odd_claims,
    "junk": _junk_token,
    "wrong key": lambda _rng, body: sign(body, secret=signing.SECRET[:-1]),
}


# --- by public key --------------------------------------------------------------------------------------------------


def _header(**changes: Any) -> dict[str, Any]:
    header = {"alg": "ES256", "kid": signing.KEY_ID, "typ": "JWT"} | changes
    return {name: value for name, value in header.items() if value is not None}


def _public_key() -> ec.EllipticCurvePublicKey:
    return signing.PRIVATE_KEY.public_key()


def _confused_public_algorithm(rng: random.Random, body: bytes) -> bytes:
    """The public key as a secret, no algorithm, and others than ES256."""
    secrets = [
        _public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        json.dumps(signing.jwk()),
        signing.KEY_ID,
        "",
        signing.SECRET,
    ]
    algorithms = [
        "HS256",
        "none",
        "None",
        "",
        "ES384",
        "ES256K",
        "PS256",
        "RS256",
        "EdDSA",
        "es256",
        None,
        256,
        ["ES256"],
    ]
    token = signing.token(
        public_claims_of(body), rng.choice(secrets), header=_header(alg=rng.choice(algorithms))
    ).encode()
    return rng.choice([token, token.rpartition(b".")[0] + b"."])


def _odd_public_header(rng: random.Random, body: bytes) -> bytes:
    """A header of the wrong shape, or one that names another key, signed with another key."""
    depth, long = rng.choice([10, 100, 5000]), "k" * rng.choice([300, 5000])
    ids: list[Any] = [
        "",
        "unknown",
        long,
        "é\u2028\0",
        "../../keys",
        "__proto__",
        7,
        1e308,
        True,
        [],
        {},
        [signing.KEY_ID],
    ]
    own = signing.jwk(_OTHER_KEY)
    der = _OTHER_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    headers: list[Any] = [
        _header(kid=rng.choice(ids)),
        _header(kid=None),
        _header(jwk=own),
        _header(jwk=own, kid=None),
        _header(x5c=[base64.b64encode(der).decode()], x5t="x"),
        _header(jku=f"{identity().issuer}/elsewhere", kid="elsewhere"),
        _header(x5u="http://127.0.0.1:1/", crit=["x5u"]),
        _header(crit=["exp"], exp=1),
        _header(b64=False, crit=["b64"]),
        _header(typ=rng.choice([7, {}, "JOSE+JSON", "at+jwt"]), cty="JWT"),
        "[" * depth + "]" * depth,
        '{"alg":"ES256","kid":' * depth + '"x"' + "}" * depth,
        f'{{"alg":"none","alg":"ES256","kid":"{signing.KEY_ID}"}}',
        '{"alg":"ES256","kid":"\\ud800"}',
        '{"alg":"ES256","kid":' + "9" * 500 + "}",
        '"ES256"',
        "null",
        "{",
        "",
    ]
    return signing.public_token(public_claims_of(body), _OTHER_KEY, header=rng.choice(headers)).encode()


def _odd_public_claims(rng: random.Random, body: bytes) -> bytes:
    """Claims that DT's key has signed, but that are not valid."""
    now, depth = int(time.time()), rng.choice([10, 150, 5000])
    deep = "[" * depth + "]" * depth
    text = json.dumps(public_claims_of(body))[:-1]
    organization, issuer = signing.ORGANIZATION, identity().issuer
    names = [7, None, True, [], {}, "", [organization], {organization: 1}, "é", "\0"]
    subjects = [
        *names,
        organization.upper(),
        f" {organization}",
        f"{organization},",
        f"{organization}\0",
        organization[:-1],
    ]
    issuers = [*names, f"{issuer}/", issuer.upper(), issuer.replace("http", "https"), signing.ISSUER, issuer + "\0"]
    times = ["null", "true", '"1"', "-1", "1e400", "1e13", "NaN", "-Infinity", "9" * 400, "{}", deep, str(now - 60)]
    sums = ["null", "0", "true", '""', "[]", '"\\ud800"', deep, f'"{"0" * 64}"', '"' + "é" * 64 + '"']
    claims = [
        text + f',"sub":{json.dumps(rng.choice(subjects))}}}',
        text + f',"iss":{json.dumps(rng.choice(issuers))}}}',
        text + f',"exp":{rng.choice(times)}}}',
        text + f',"iat":{rng.choice([*times[:-1], str(now + 3600)])}}}',
        text + f',"nbf":{rng.choice([*times[:-1], str(now + 3600)])}}}',
        text + f',"checksum_sha256":{rng.choice(sums)}}}',
        json.dumps(public_claims_of(body, **{rng.choice(["exp", "iat", "iss", "sub", "checksum_sha256"]): None})),
        json.dumps([public_claims_of(body)]),
        text,
        deep,
        "",
    ]
    return signing.public_token(rng.choice(claims)).encode()


def _odd_public_signature(rng: random.Random, body: bytes) -> bytes:
    """True claims with a signature that is not r and s of 32 bytes, or not of DT's key."""
    token = public_sign(body)
    signed = token.rpartition(b".")[0]
    der = signing.PRIVATE_KEY.sign(signed, ec.ECDSA(SHA256()))
    r, s = decode_dss_signature(_P384.sign(signed, ec.ECDSA(SHA384())))
    zero, order = bytes(32), bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
    signatures = [
        der,
        der[:64],
        b"",
        zero + zero,
        order + order,
        zero[:-1] + b"\1" + zero[:-1] + b"\1",
        r.to_bytes(48, "big") + s.to_bytes(48, "big"),
        rng.randbytes(64),
        rng.randbytes(rng.randrange(300)),
    ]
    return signed + b"." + base64.urlsafe_b64encode(rng.choice(signatures)).rstrip(b"=")


def _other_serialization(rng: random.Random, body: bytes) -> bytes:
    """A true token in a form that is not the compact one: JSON, nested, or with the five parts of an encrypted one."""
    token = public_sign(body)
    head, claims, signature = (part.decode() for part in token.split(b"."))
    flat = {"payload": claims, "protected": head, "signature": signature}
    forms = [
        json.dumps(flat),
        json.dumps({"payload": claims, "signatures": [{"protected": head, "signature": signature}]}),
        json.dumps(flat | {"header": {"alg": "none"}}),
        f"{head}.{claims}.{signature}.{head}.{claims}",
        f"{head}..{signature}",
        f"{head}.{claims}={'=' * rng.randrange(3)}.{signature}",
        signing.public_token(f'"{token.decode()}"'),
    ]
    return rng.choice(forms).encode()


PUBLIC_TOKENS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "empty": lambda *_: b"",
    "mutated": lambda rng, body: _mutated(rng, public_sign(body)),
    "algorithm": _confused_public_algorithm,
    "header": _odd_public_header,
    "claims": _odd_public_claims,
    "signature": _odd_public_signature,
    "serialization": _other_serialization,
    "junk": _junk_token,
    "wrong key": lambda _rng, body: signing.public_token(public_claims_of(body), _OTHER_KEY).encode(),
    "another body": lambda _rng, body: public_sign(body + b" "),
}
