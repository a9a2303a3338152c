"""Tests a deployed endpoint: delivers one signed synthetic event several times, and deletes its document.

Started by deploy.sh. It needs a Python 3.8 or newer without packages, such as the one that gcloud brings; therefore it
uses argparse, and nothing of this project.
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

_DESCRIPTION = """\
Deliver a synthetic event to an endpoint, as DT Cloud does, and delete its document. The first line of standard input
is an access token for Firestore's REST API; each further line is a signature secret.
"""
_EXAMPLE = """\
example:
  { gcloud auth print-access-token && cat secret.txt; } | python3 deploy/smoke_test.py --url https://x.run.app \\
    --documents 'https://firestore.googleapis.com/v1/projects/P/databases/(default)/documents/events'
"""
_TIMEOUT = 60.0  # seconds; includes a cold start
_PAUSE = 2.0  # seconds
_REASONS = {
    0: "the endpoint cannot be reached",
    400: "the endpoint has another signature secret",
    401: "the endpoint is not public",
    403: "the endpoint is not public: an organization policy (iam.allowedPolicyMemberDomains) may forbid allUsers",
    404: "there is no service at this URL",
    500: "see the traceback in the function's log",
    503: "Firestore refuses the event: see the function's log",
}


class SmokeTestError(Exception):
    """Raised if the endpoint does not behave as expected; the text is one line that says how."""


def main(argv: list[str] | None = None) -> int:
    """Run the test.

    Returns:
        The exit status: 0 passed, 1 failed, 2 a wrong argument.
    """
    parser = argparse.ArgumentParser(
        "python3 deploy/smoke_test.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="URL of the endpoint")
    parser.add_argument("--documents", required=True, metavar="URL", help="the collection, in Firestore's REST API")
    parser.add_argument("--patience", type=float, default=120, metavar="SECONDS", help="wait for the first 200 (120)")
    parser.add_argument(
        "--no-secret", action="store_true", help="test only that unsigned and forged events are refused"
    )
    options = parser.parse_args(argv)
    token, *secrets = [line.strip() for line in sys.stdin if line.strip()] or [""]
    if not secrets and not options.no_secret:
        parser.error("standard input must hold an access token and, below it, the signature secret")
    try:
        if options.no_secret:
            _test_refusals(options.url, options.patience)
            _say("the first event that DT sends is the proof that true events are accepted")
            return 0
        _test(options.url, secrets, options.documents, token, options.patience)
    except SmokeTestError as error:
        print(f"The smoke test failed: {error}.", file=sys.stderr)
        return 1
    return 0


def _test(url: str, secrets: list[str], documents: str, token: str, patience: float) -> None:
    event_id = f"deploy-{uuid.uuid4().hex}"
    body = _body(event_id)
    try:
        _deliver_until_stored(url, body, secrets[0], patience)
        for secret in [secrets[0], *secrets]:
            _expect(200, "the same event again", *_deliver(url, body, _sign(body, secret)))
        tampered = body.replace(b"touch", b"motion")
        _expect(400, "a tampered event", *_deliver(url, tampered, _sign(body, secrets[0])))
    finally:
        status = _delete(f"{documents}/{event_id}", token)
    if status != 200:  # noqa: PLR2004 - an HTTP status
        raise SmokeTestError(f"deleting the synthetic document {event_id} from Firestore was answered with {status}")
    _say("the synthetic document was in Firestore, and is deleted")


def _test_refusals(url: str, patience: float) -> None:
    """Deliver an unsigned and a forged event; only DT can sign a true one."""
    body = _body(f"deploy-{uuid.uuid4().hex}")
    limit = time.monotonic() + patience
    while (delivered := _post(url, body, {}))[0] not in (200, 400) and time.monotonic() < limit:
        _say(f"the endpoint does not answer yet: {delivered[0] or 'no answer'}")
        time.sleep(_PAUSE)
    _expect(400, "an unsigned event", *delivered)
    forged = _sign(body, uuid.uuid4().hex)
    headers = {"X-Dt-Signature": forged, "DT-Asymmetric-Signature": forged}
    _expect(400, "a forged event", *_post(url, body, headers))


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    return _request("POST", url, {"Content-Type": "application/json", **headers}, body)


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
    checksums = {
        "checksum": hashlib.sha1(body).hexdigest(),  # noqa: S324 - DT's choice
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
    }
    claims = {**checksums, "exp": now + 3600, "iat": now, "jti": uuid.uuid4().hex}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_base64(hmac.new(secret.encode(), signed.encode(), 'sha256').digest())}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _deliver_until_stored(url: str, body: bytes, secret: str, patience: float) -> None:
    """Repeat the delivery: the roles and the public access of a new service take a while to become effective."""
    limit = time.monotonic() + patience
    while True:
        status, answer = _deliver(url, body, _sign(body, secret))
        if status in (200, 400) or time.monotonic() > limit:
            return _expect(200, "a new event", status, answer)
        _say(f"the endpoint does not accept events yet: {status or 'no answer'} ({_REASONS.get(status, answer[:100])})")
        time.sleep(_PAUSE)


def _expect(expected: int, delivery: str, status: int, answer: str) -> None:
    if status != expected:
        reason = _REASONS.get(status, answer[:100]) if expected == 200 else "it verifies no signatures"  # noqa: PLR2004 - HTTP
        raise SmokeTestError(f"{delivery} was answered with {status or 'nothing'} instead of {expected}: {reason}")
    _say(f"{delivery}: {status}")


def _deliver(url: str, body: bytes, token: str) -> tuple[int, str]:
    return _post(url, body, {"X-Dt-Signature": token})


def _delete(document: str, token: str) -> int:
    """Delete a document that must exist, and return the status."""
    project = document.partition("/projects/")[2].partition("/")[0]
    headers = {"Authorization": f"Bearer {token}", "X-Goog-User-Project": project}
    return _request("DELETE", f"{document}?currentDocument.exists=true", headers, None)[0]


def _request(method: str, url: str, headers: dict[str, str], body: bytes | None) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - the user's own URL
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except OSError as error:
        return 0, str(error)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
