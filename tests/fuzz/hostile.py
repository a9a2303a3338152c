"""Hostile requests, and valid ones in unusual form, made from a random generator; only their tokens depend on the time.

Each of `FAMILIES` makes requests together with the verdicts that are right for them.
"""

import json
import random
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from tests.events import DATA, encode, envelope
from tests.fuzz.tokens import PUBLIC_TOKENS, TOKEN_MARK, TOKENS, public_sign, sign

MARK = "mark-of-a-body"  # in every body; must not be in an answer or in the log
MEBIBYTE = 1024 * 1024
_PUBLIC_KEY_HEADER = b"DT-Asymmetric-Signature: "
_PATIENCE = 0.1  # seconds until a sender closes its side of a connection on which the function may expect more

# The verdicts. Any other answer, such as 500 and 503, is a finding.
STORED, QUARANTINED, UNVERIFIED, TOO_LARGE = "stored", "quarantined", "unverified", "too large"
METHOD, NOT_HTTP, NO_ROUTE, CLOSED = "method", "not HTTP", "no route", "closed"


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes sent over one connection, and the right verdicts.

    Attributes:
        kind: family and variant.
        pieces: the bytes, written one after another.
        right: the verdicts that are right for each answer.
        signed: the bodies with a valid signature, in the order of the answers; nothing else may be stored.
        patience: seconds until the sender half-closes the connection, if the function may expect more bytes; None: the
            sender waits for the answers.
        gone: the sender resets the connection after the last piece and reads nothing.
    """

    kind: str
    pieces: tuple[bytes, ...]
    right: AbstractSet[str]
    signed: tuple[bytes, ...] = ()
    patience: float | None = None
    gone: bool = False


def make(rng: random.Random) -> Request:
    """Return a random request whose token, if valid, is valid now."""
    family = rng.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    return family(rng)


def post(
    body: bytes,
    token: bytes | None,
    *,
    line: bytes = b"POST / HTTP/1.1",
    headers: Iterable[bytes] = (),
    length: bytes | None = None,
) -> bytes:
    """Return a whole HTTP request.

    Args:
        body: the body.
        token: X-Dt-Signature; None for no such header.
        line: the request line.
        headers: more header lines.
        length: Content-Length; None for the body's own, b"" for no such header.
    """
    lines = [line, b"Host: localhost"]
    if token is not None:
        lines.append(b"X-Dt-Signature: " + token)
    if length != b"":
        lines.append(b"Content-Length: " + (length or b"%d" % len(body)))
    return b"\r\n".join([*lines, *headers, b"", body])


def _event(rng: random.Random) -> dict[str, Any]:
    made = envelope(rng.choice(list(DATA)), eventId=f"{rng.getrandbits(100):025x}")
    made["labels"]["mark"] = MARK
    return made


def _body(rng: random.Random) -> bytes:
    return encode(_event(rng))


_CHUNKED = (b"Transfer-Encoding: chunked",)


def _chunks(rng: random.Random, body: bytes) -> bytes:
    """Return the body in chunks of unusual but legal notation."""
    out = bytearray()
    while body:
        size = rng.randint(1, max(1, len(body)))
        notation = rng.choice([b"%x", b"%X", b"000%x"]) % size
        out += notation + rng.choice([b"", b";ext=1", b';e="quoted"']) + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    return bytes(out) + rng.choice([b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"])


def _in_pieces(rng: random.Random, data: bytes, most: int = 3) -> tuple[bytes, ...]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(most)))
    return tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))


# --- valid requests -------------------------------------------------------------------------------------------------

_PATHS = (
    b"/any/path",
    b"/?" + b"q=%00&" * 50,
    b"//",
    b"/%ff%00%ed%a0%80",
    b"/" + b"a" * 9000,
    b"/../../etc/passwd",
    b"/robots.txt",
    b"http://elsewhere.example/x?y#z",
    b"/;;;?a?b?c",
    b"/%",
)


def _valid(rng: random.Random) -> Request:
    """A valid event in a form that must not matter."""
    made = _event(rng)
    body = rng.choice([encode(made), b" \n" + json.dumps(made, indent=1).encode() + b"\r\n\t"])
    claims: list[dict[str, Any]] = [{}, {"checksum": None}, {"checksum_sha256": None}, {"exp": int(time.time()) + 5}]
    token = sign(body, **rng.choice(claims))
    name = "".join(rng.choice([char.lower(), char.upper()]) for char in "x-dt-signature").encode()
    signature = name + rng.choice([b":", b": ", b":\t "]) + token
    path = rng.choice(_PATHS)
    forms: dict[str, Callable[[], bytes]] = {
        "plain": lambda: post(body, token),
        "path": lambda: post(body, token, line=b"POST " + path + b" HTTP/1.1"),
        "header case": lambda: post(body, None, headers=[signature]),
        "header order": lambda: post(body, None, headers=[b"A: b", signature, b"X-Dt-Signature: " + TOKEN_MARK]),
        "chunked": lambda: post(_chunks(rng, body), token, length=b"", headers=_CHUNKED),
        "HTTP/1.0": lambda: post(body, token, line=b"POST / HTTP/1.0"),
        "expect": lambda: post(body, token, headers=[b"Expect: 100-Continue"]),
        "blank lines first": lambda: b"\r\n\r\n" + post(body, token),
        "wrong types": lambda: post(body, token, headers=[b"Content-Type: text/\xff", b"Content-Encoding: gzip"]),
        "odd headers": lambda: post(body, token, headers=[_odd_header(rng) for _ in range(rng.randint(1, 60))]),
    }
    kind = rng.choice(list(forms))
    return Request(f"valid, {kind}", _in_pieces(rng, forms[kind](), 6), {STORED}, (body,))


def _odd_header(rng: random.Random) -> bytes:
    names = [b"traceparent", b"X-Cloud-Trace-Context", b"Function-Execution-Id", b"Cookie", b"Authorization", b"ce-id"]
    values = [
        b"00-" + b"a" * 32 + b"-b7ad6b7169203331-01",
        b"105445aa7843bc8bf206b12000100000/1;o=1",
        b"\xd9\xa1" * 16 + b"/1;o=1",
        bytes(rng.randrange(0x80, 0x100) for _ in range(20)),
        b"Bearer " + TOKEN_MARK,
        b"x" * rng.randrange(3000),
        b"",
    ]
    return rng.choice(names) + b": " + rng.choice(values)


def _pipelined(rng: random.Random) -> Request:
    """Several valid events on one connection before the first answer is read."""
    bodies = tuple(_body(rng) for _ in range(rng.randint(2, 5)))
    data = b"".join(post(body, sign(body)) for body in bodies)
    return Request("valid, pipelined", _in_pieces(rng, data, 6), {STORED}, bodies)


# --- tokens ---------------------------------------------------------------------------------------------------------


def _token(rng: random.Random) -> Request:
    """A valid event whose token is not valid."""
    body = _body(rng)
    kind = rng.choice(list(TOKENS))
    return Request(f"token, {kind}", (post(body, TOKENS[kind](rng, body)),), {UNVERIFIED})


def _public_token(rng: random.Random) -> Request:
    """A valid event whose public-key token is not valid, without a token of a secret or with one that is not valid."""
    body = _body(rng)
    kind = rng.choice(list(PUBLIC_TOKENS))
    public = PUBLIC_TOKENS[kind](rng, body)
    token = rng.choice([None, None, TOKENS["wrong key"](rng, body), TOKENS["junk"](rng, body)])
    data = post(body, token, headers=[_PUBLIC_KEY_HEADER + public])
    return Request(f"public-key token, {kind}", (data,), {UNVERIFIED})


def _proven_twice(rng: random.Random) -> Request:
    """A valid event with one valid token, beside one that is not valid."""
    body = _body(rng)
    if rng.random() < 0.5:
        kind = rng.choice(list(PUBLIC_TOKENS))
        data = post(body, sign(body), headers=[_PUBLIC_KEY_HEADER + PUBLIC_TOKENS[kind](rng, body)])
    else:
        kind = rng.choice(list(TOKENS))
        data = post(body, TOKENS[kind](rng, body), headers=[_PUBLIC_KEY_HEADER + public_sign(body)])
    return Request(f"valid beside another token, {kind}", (data,), {STORED}, (body,))


# --- bodies ---------------------------------------------------------------------------------------------------------


def _altered(rng: random.Random) -> Request:
    """A valid token for another body."""
    body = _body(rng)
    at = rng.randrange(len(body))
    altered = [
        body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :],
        body[:at] + body[at + 1 :],
        body[:at],
        body + rng.choice([b" ", b"\n", b"\0"]),
        b"\xef\xbb\xbf" + body,
        _body(rng),
        b"",
    ]
    return Request("body altered after signing", (post(rng.choice(altered), sign(body)),), {UNVERIFIED})


def _unprocessable(rng: random.Random) -> Request:
    """A signed body that is not a valid document."""
    kind = rng.choice(list(_UNPROCESSABLE))
    body = _UNPROCESSABLE[kind](rng)
    return Request(f"unprocessable, {kind}", _in_pieces(rng, post(body, sign(body))), {QUARANTINED}, (body,))


def _with_json(rng: random.Random, text: str, place: str = "data") -> bytes:
    """Return a signed body with a given JSON text, valid or not, in one field of its event."""
    made = _event(rng)
    made["event"][place] = "HERE"
    return encode(made).replace(b'"HERE"', text.encode(), 1)


def _one_of(*texts: str, place: str = "data") -> Callable[[random.Random], bytes]:
    """Return a function that makes an event with one of these JSON texts in one field."""
    return lambda rng: _with_json(rng, rng.choice(texts), place)


def _nested(rng: random.Random) -> str:
    depth = rng.choice([21, 22, 100, 950, 3000, 20_000])
    opening, closing = rng.choice([("[", "]"), ('{"m":', "}"), ('[{"m":', "}]")])
    return opening * depth + "1" + closing * depth


_BAD_IDS = ['""', '"."', '".."', '"__a__"', '"____"', '"a/b"', '"a\\u0000b"', '"\\u0085"', "7", "null", "[]", "{}"]
_BAD_IDS += ["true", json.dumps("é" * 751), json.dumps("a" * 1501), '"\\ud800"', '"\\udfff\\ud800"', "1e5", '"\\n"']
_UNPROCESSABLE: dict[str, Callable[[random.Random], bytes]] = {
    "not JSON": lambda rng: _body(rng)[: rng.randrange(1, 200)],
    "two values": lambda rng: _body(rng) * 2,
    "not UTF-8": lambda rng: _body(rng).replace(b"Milk", rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])),
    "UTF-16": lambda rng: _body(rng).decode().encode(rng.choice(["utf-16", "utf-16-be", "utf-32"])),
    "byte order mark": lambda rng: b"\xef\xbb\xbf" + _body(rng),
    "not an object": lambda rng: rng.choice([b"", b"[]", b"null", b"7", b'"x"', b"[" + _body(rng) + b"]"]),
    "no event": lambda rng: encode(_event(rng) | {"event": rng.choice([None, 1, "x", [], [{}]])}),
    "bad eventId": _one_of(*_BAD_IDS, place="eventId"),
    "not a number": _one_of("NaN", "[Infinity]", '{"x":-Infinity}', "1e999", "[-1e999]"),
    "not a JSON number": _one_of("01", "+1", ".5", "1.", "0x10", "1_0", "--1", "1e"),
    "big integer": _one_of(str(2**63), str(-(2**63) - 1), "9" * 4000, "9" * 5000),
    "repeated name": _one_of('{"a":1,"a":1}', '[{"a":{"b":1,"b":2}}]'),
    "array in array": _one_of("[[1]]", "[[]]", '{"a":[{"b":[1,[2]]}]}'),
    "bad name": _one_of('{"":1}', '{"__x__":1}', '{"____":1}', f'{{"{"a" * 1501}":1}}'),
    "surrogate": _one_of('"\\ud800"', '{"\\udfff":1}', '["x\\udc00\\ud800"]'),
    "depth": lambda rng: _with_json(rng, _nested(rng)),
    "control character": _one_of('"\n"', '"\x00"', '"\\x"', '"\\u12"'),
}


def _big(rng: random.Random) -> Request:
    """A signed event near the limit of a body.

    Its arrays stay below Firestore's limit of index entries: the emulator takes half a minute to index 300,000.
    """
    items = ["1,", "{},", '"' + "é" * 300 + '",', '{"a":"' + "\\u0000" * 100 + '"},', "1." + "1" * 5000 + ","]
    item = rng.choice(items)
    body = _with_json(rng, "[" + item * min(2_000, (MEBIBYTE - 3000) // len(item.encode())) + "0]")
    return Request("signed, near 1 MiB", _in_pieces(rng, post(body, sign(body)), 6), {STORED, QUARANTINED}, (body,))


def _too_big(rng: random.Random) -> Request:
    """A signed event beyond the limit, announced, chunked, or announced far larger than it is."""
    body = _with_json(rng, '"' + "x" * (MEBIBYTE + rng.choice([0, 100_000])) + '"')
    forms: dict[str, Callable[[], bytes]] = {
        "announced": lambda: post(body, sign(body)),
        "chunked": lambda: post(_chunks(rng, body), sign(body), length=b"", headers=_CHUNKED),
        "announced as a terabyte": lambda: post(body, sign(body), length=b"1099511627776"),
    }
    kind = rng.choice(list(forms))
    return Request(f"too large, {kind}", (forms[kind](),), {TOO_LARGE})


def _wild(rng: random.Random) -> Request:
    """A signed event with random JSON in random fields: it is stored or quarantined, never lost."""
    made = _event(rng)
    for _ in range(rng.randint(1, 4)):
        place = rng.choice([made, made["event"], made["labels"], made["metadata"]])
        name = rng.choice(
            [*place, "extra", "receivedAt", "expireAt", "__x__", "", "a.b", "`", "é\u2028", "event", "\0"]
        )
        if name not in ("event", "labels", "metadata", "eventId") or place is not made:
            place[name] = _json(rng, 4)
    if rng.random() < 0.3:
        made["event"]["timestamp"] = rng.choice(_TIMES)
    body = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return Request("signed, wild", (post(body, sign(body)),), {STORED, QUARANTINED}, (body,))


_TIMES: list[Any] = [
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999999-23:59",
    "9999-12-31T24:00:00Z",
    "0000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-06-30T23:59:60Z",
    "2026-05-16T08:13:15." + "1" * 400 + "Z",
    "2026-05-16t08:13:15z",
    "2026-05-16T08:13:15+99:99",
    "\u0662\u0660\u0662\u0666-05-16T08:13:15Z",
    "2026-05-16T08:13:15Z\n",
]
_TIMES += ["1", 1e308, -1, None, [], {}]


def _json(rng: random.Random, depth: int) -> Any:
    if depth and rng.random() < 0.4:
        values = [_json(rng, depth - 1) for _ in range(rng.randrange(4))]
        names = rng.sample(["a", "b", "c.d", "é", "__y", "z__", "0", "event", "\u2028"], len(values))
        return rng.choice([values, dict(zip(names, values, strict=True))])
    numbers = [0, -0.0, 1.5, 5e-324, 1.7976931348623157e308, 2**63 - 1, -(2**63), 2**53 + 1]
    texts = ["", "x" * rng.randrange(2000), "\0", "\U0001f321", "\ufffe", "\ud83c", "e\u0301"]
    texts += ["</script>", "%s", "\u202e"]
    return rng.choice([rng.choice(numbers), rng.choice(texts), None, True, False])


# --- malformed HTTP -------------------------------------------------------------------------------------------------


def _odd(kind: str, body: bytes, *pieces: bytes) -> Request:
    """Return a request that HTTP parsers read in different ways: any verdict is right except quarantine."""
    right = {STORED, UNVERIFIED, TOO_LARGE, METHOD, NOT_HTTP, NO_ROUTE, CLOSED}
    return Request(kind, pieces, right, (body,), patience=_PATIENCE)


def _odd_head(rng: random.Random) -> Request:
    """A valid event with a header line that is malformed, forbidden or huge."""
    body = _body(rng)
    token = sign(body)
    line = rng.choice(_odd_header_lines(rng))
    if rng.random() < 0.5:
        data = post(body, None, headers=[line, b"X-Dt-Signature: " + token])
    else:
        data = post(body, token, headers=[line])
    return _odd("odd header line", body, data)


def _odd_header_lines(rng: random.Random) -> list[bytes]:
    return [
        rng.randbytes(rng.randint(1, 40)),
        b": no name",
        b"no colon",
        b"space before : colon",
        b" folded: line",
        b"X:" + bytes([rng.randrange(32)]),
        b"X-" + bytes([rng.randrange(128, 256)]) + b": x",
        b"X: " + b"y" * 200_000,
        b"\r\n".join(b"X-%d: y" % number for number in range(1500)),
        b"Host: two\r\nHost:",
        b"Connection: upgrade\r\nUpgrade: " + rng.choice([b"websocket", b"h2c", b"\xff", b""]),
        b"Connection: " + rng.choice([b"close, keep-alive", b"\xff", b"upgrade", b"content-length"]),
        b"X-Dt-Signature: " + TOKEN_MARK,
        b"Expect: " + rng.choice([b"200-ok", b"100-continue, x", b""]),
    ]


_CODINGS = (b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"\x0bchunked", b"identity", b"")


def _odd_framing(rng: random.Random) -> Request:
    """A valid event with a wrong, repeated or missing length, followed by a forged event."""
    body, forged = _body(rng), post(_body(rng), b"x." + TOKEN_MARK)
    length = rng.choice([*_odd_lengths(len(body)), b"", None])
    headers = [b"Transfer-Encoding: " + rng.choice(_CODINGS)] if rng.random() < 0.4 else []
    data = post(rng.choice([body, _chunks(rng, body)]), sign(body), length=length, headers=headers) + forged
    return _odd("odd framing", body, *_in_pieces(rng, data))


def _odd_lengths(size: int) -> list[bytes]:
    texts = [b"-1", b"+%d" % size, b"0x10", b"%d %d" % (size, size), b"%d,%d" % (size, size), b" ", b"1e3", b"\xb2"]
    numbers = [0, size // 2, size - 1, size + 1, 2**31, 2**63, 2**64, 2**64 + size, 10**40]
    pairs = [(size, size), (size, 0), (0, size)]
    return [*texts, *(b"%d" % number for number in numbers), *(b"%d\r\nContent-Length: %d" % pair for pair in pairs)]


def _odd_chunks(rng: random.Random) -> Request:
    """A valid event in malformed chunks."""
    body = _body(rng)
    size, rest = b"%x" % len(body), b"\r\n" + body + b"\r\n0\r\n\r\n"
    sizes = [b"zz", b"-1", b"", b"0x" + size, b" " + size, b"f" * 16, b"f" * 17, b"1" + b"0" * 300]
    chunks = [
        rng.choice(sizes) + rest,
        size + b";" + b"e" * 100_000 + rest,
        size + b"\n" + body + b"\n0\n\n",
        size + b"\r\n" + body + b"0\r\n\r\n",
        size + b"\r\n" + body + b"\r\n",
        size + b"\r\n" + body[:-1],
        size + b"\r\n" + body + b"\r\n0\r\n" + b"T: x\r\n" * 3000 + b"\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
        size + b"\r\n" + body + b"\r\n0\r\n" + rng.randbytes(20),
    ]
    data = post(rng.choice(chunks), sign(body), length=b"", headers=_CHUNKED)
    return _odd("odd chunks", body, *_in_pieces(rng, data))


_METHODS = [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"PRI"]
_METHODS += [b"QUERY", b"post", b"POSTS", b"P\xd6ST", b"", b"POST POST", b"M" * 5000]
_TARGETS = [b"/", b"*", b"", b"localhost:80", b"/robots.txt", b"/ /", b"/\xff", b"/\x00", b"/" + b"%41" * 30_000]
_TARGETS += [b"http://", b"/a%0Ab", b"/%0A/", b"/%0A/?\xff", b"//%0A/", b"http://[::1", b"/?\xff", b"\\", b"ftp://x/"]
_TARGETS += [b"#", b"/#\xff"]
_VERSIONS = [b"1.1", b"1.0", b"0.9", b"1.2", b"2.0", b"9.9", b"11"]
_VERSIONS = [*(b"HTTP/" + version for version in _VERSIONS), b"http/1.1", b""]


def _odd_line(rng: random.Random) -> Request:
    """A request line with another method, version or target."""
    body = _body(rng)
    method = rng.choice([b"POST", rng.choice(_METHODS)])
    target = rng.choice(_TARGETS)
    version = rng.choice([b"HTTP/1.1", rng.choice(_VERSIONS)])
    host = rng.choice([b"[::1", b"\xff", b"a b", b"x:99999"])
    line = b" ".join([method, target, version])
    return _odd("odd request line", body, post(body, sign(body), line=line, headers=[b"Host: " + host]))


def _garbage(rng: random.Random) -> Request:
    """Bytes that are not HTTP."""
    garbage = [
        rng.randbytes(rng.randint(1, 400)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(60),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)),
        b"GET /\r\n",
        b"\r\n" * rng.randint(1, 5000),
        b"\x00" * rng.randint(1, 5000),
        b"POST / HTTP/1.1\r\n" + b"A" * 50_000,
    ]
    return Request("garbage", _in_pieces(rng, rng.choice(garbage)), {NOT_HTTP, CLOSED}, patience=_PATIENCE)


def _early_close(rng: random.Random) -> Request:
    """A valid event whose sender closes the connection before the end, or before the answer."""
    body = _body(rng)
    data = post(body, sign(body), headers=rng.choice([[], [b"Expect: 100-continue"]]))
    data = data[: rng.choice([rng.randint(1, len(data)), len(data)])]
    right = {CLOSED, STORED, UNVERIFIED}
    return Request("early close", _in_pieces(rng, data), right, (body,), patience=0, gone=rng.random() < 0.5)


FAMILIES: dict[Callable[[random.Random], Request], float] = {
    _valid: 14,
    _pipelined: 2,
    _token: 20,
    _public_token: 25,
    _proven_twice: 6,
    _altered: 8,
    _unprocessable: 14,
    _wild: 12,
    _big: 0.15,
    _too_big: 0.15,
    _odd_head: 6,
    _odd_framing: 6,
    _odd_chunks: 3,
    _odd_line: 5,
    _garbage: 2,
    _early_close: 3,
}
