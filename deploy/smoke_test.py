"""Proves a deployed endpoint: signed deliveries of one synthetic event, which is removed again.

Started by deploy.sh; needs nothing but a Python 3.8 or newer, which may be the one that gcloud brings.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLE = """\
example:
  { gcloud auth print-access-token && cat secret.txt; } | python3 deploy/smoke_test.py --url https://x.run.app \\
    --documents 'https://firestore.googleapis.com/v1/projects/P/databases/(default)/documents/events'
"""
_ANSWER_LIMIT = 60.0  # seconds; a cold start is in it
_PAUSE = 2.0  # seconds

_WHY = {
    0: "nothing answers there",
    400: "it knows another signature secret",
    401: "it is not public",
    403: "it is not public: an organisation policy (iam.allowedPolicyMemberDomains) may forbid allUsers",
    404: "there is no service at that address",
    500: "the function's log has the traceback",
    503: "Firestore refuses it: see the function's log",
}


class SmokeError(Exception):
    """Raised if the endpoint does not do what it should; the text is one line that says what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the test and say how it went.

    Args:
        argv: the arguments; None takes those of the process. Standard input has an access token for Firestore's REST
            API in its first line, and the signature secrets in the further ones.

    Returns:
        The exit status: 0 proved, 1 not, 2 a wrong argument.
    """
    parser = argparse.ArgumentParser(
        prog="python3 deploy/smoke_test.py",
        description="Deliver a synthetic event to an endpoint, as DT Cloud does, and remove it again.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="the endpoint")
    parser.add_argument("--documents", required=True, metavar="URL", help="the collection, in Firestore's REST API")
    parser.add_argument("--patience", type=float, default=120, metavar="SECONDS", help="for the first 200 (120)")
    arguments = parser.parse_args(argv)
    token, *secrets = [line.strip() for line in sys.stdin if line.strip()] or [""]
    if not secrets:
        parser.error("standard input must hold an access token and, below it, the signature secret")
    try:
        _prove(arguments.url, secrets, arguments.documents, token, arguments.patience)
    except SmokeError as error:
        print(f"The endpoint is not proved: {error}.", file=sys.stderr)
        return 1
    return 0


def _prove(url: str, secrets: list[str], documents: str, token: str, patience: float) -> None:
    event_id = f"deploy-{uuid.uuid4().hex}"
    body = _body(event_id)
    try:
        _deliver_until_stored(url, body, _sign(body, secrets[0]), patience)
        for secret in [secrets[0], *secrets]:
            _expect(200, "the same event again", *_post(url, body, _sign(body, secret)))
        _expect(400, "a tampered event", *_post(url, body.replace(b"touch", b"motion"), _sign(body, secrets[0])))
    finally:
        status = _remove(f"{documents}/{event_id}", token)
    if status != 200:  # noqa: PLR2004 - HTTP's own number
        raise SmokeError(f"removing the synthetic document {event_id} from Firestore was answered with {status}")
    _say("the synthetic document was in Firestore, and is removed")


def _body(event_id: str) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    event = {
        "eventId": event_id,
        "targetName": "projects/deploy/devices/synthetic",
        "eventType": "touch",
        "data": {"touch": {"updateTime": now}},
        "timestamp": now,
    }
    return json.dumps({"event": event, "labels": {}}, separators=(",", ":")).encode()


def _sign(body: bytes, secret: str) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "checksum": hashlib.sha1(body).hexdigest(),  # noqa: S324 - DT's choice
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": now + 3600,
        "iat": now,
        "jti": uuid.uuid4().hex,
    }
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_base64(hmac.new(secret.encode(), signed.encode(), 'sha256').digest())}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _deliver_until_stored(url: str, body: bytes, token: str, patience: float) -> None:
    """Deliver until it is acknowledged: roles of a new service, and its public access, take a while to be known."""
    limit = time.monotonic() + patience
    status, answer = _post(url, body, token)
    while status not in (200, 400) and time.monotonic() < limit:
        _say(f"the endpoint answers {status or 'nothing'} as yet ({_WHY.get(status, 'why is not known')})")
        time.sleep(_PAUSE)
        status, answer = _post(url, body, token)
    _expect(200, "a new event", status, answer)


def _expect(wanted: int, what: str, status: int, answer: str) -> None:
    if status != wanted:
        why = _WHY.get(status, answer[:100]) if wanted == 200 else "it does not verify"  # noqa: PLR2004 - likewise
        raise SmokeError(f"{what} was answered with {status or 'nothing'} in place of {wanted}: {why}")
    _say(f"{what}: {status}")


def _post(url: str, body: bytes, token: str) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", "X-Dt-Signature": token}
    return _request("POST", url, headers, body)


def _remove(document: str, token: str) -> int:
    """Remove a document that must be there, and return the status."""
    project = document.partition("/projects/")[2].partition("/")[0]
    headers = {"Authorization": f"Bearer {token}", "X-Goog-User-Project": project}
    return _request("DELETE", f"{document}?currentDocument.exists=true", headers, None)[0]


def _request(method: str, url: str, headers: dict[str, str], body: bytes | None) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the URL is the deployer's own
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_LIMIT) as response:  # noqa: S310 - likewise
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except OSError as error:
        return 0, str(error)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
