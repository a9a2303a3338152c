"""Tests a deployed endpoint: delivers one signed synthetic event several times, and deletes its document.

Started by deploy.sh. It needs a Python 3.8 or newer without packages, such as the one that gcloud brings; therefore it
uses argparse, and nothing of this project.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

_DESCRIPTION = """\
Deliver a synthetic event to an endpoint, as DT Cloud does, and delete its
document. The first line of standard input is an access token for Firestore's
REST API; each further line is a signature secret. With --wait-for-event, wait
then until an event from DT is stored; without --url, do only that.
"""
_EXAMPLE = """\
examples:
  EVENTS='https://firestore.googleapis.com/v1/projects/P/databases/(default)/documents/events'
  { gcloud auth print-access-token && cat secret.txt; } |
    python3 deploy/smoke_test.py --url https://x.run.app --documents "$EVENTS"
  gcloud auth print-access-token |
    python3 deploy/smoke_test.py --documents "$EVENTS" --wait-for-event 1800
"""
_TIMEOUT = 60.0  # seconds; includes a cold start
_PAUSE = 2.0  # seconds
_OLD_INSTANCES = 60.0  # seconds for which instances of an earlier revision may still answer
_SYNTHETIC = "deploy-"  # prefix of a synthetic event's id
_REASONS = {
    400: "the endpoint has another signature secret",
    401: "the endpoint is not public",
    403: "the endpoint is not public: an organization policy (iam.allowedPolicyMemberDomains) may forbid allUsers",
    404: "there is no service at this URL",
    429: "no instance is free: look at the quota and at --max-instances",
    500: "see the traceback in the function's log",
    503: "Firestore refuses the event: see the function's log",
}
_TEMPORARY = (0, 429, 500, 502, 503, 504)
_FIRESTORE_REASONS = {
    401: "the access token is not valid or has expired",
    403: "the account of the access token may not use this database: it needs roles/datastore.user",
    404: "the database does not exist, or the document is not there",
}


class SmokeTestError(Exception):
    """Raised if the test cannot be carried out from here, or finds a fault; the text is one line that says why."""


class WrongAnswerError(SmokeTestError):
    """Raised if the endpoint itself is at fault: it answers a delivery wrongly or not in time, or stores no event."""


class _TemporaryError(SmokeTestError):
    """Raised if Firestore cannot answer a query now."""


def main(argv: list[str] | None = None) -> int:
    """Run the test.

    Returns:
        The exit status: 0 passed; 1 not tested, because this machine could not connect, or not all of it; 2 a wrong
        argument; 3 the endpoint is at fault.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.url and not options.wait_for_event:
        parser.error("one of --url and --wait-for-event is needed")
    token, *secrets = [line.strip() for line in sys.stdin if line.strip()] or [""]
    if options.url and not secrets and not options.no_secret:
        parser.error("standard input must hold an access token and, below it, the signature secret")
    try:
        _run(options, token, secrets)
    except SmokeTestError as error:
        print(f"The smoke test failed: {error}.", file=sys.stderr)
        return 3 if isinstance(error, WrongAnswerError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python3 deploy/smoke_test.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="URL of the endpoint")
    parser.add_argument("--documents", required=True, metavar="URL", help="the collection, in Firestore's REST API")
    parser.add_argument("--patience", type=float, default=120, metavar="SECONDS", help="wait for the first 200 (120)")
    parser.add_argument(
        "--no-secret", action="store_true", help="test only that unsigned and forged events are refused"
    )
    parser.add_argument(
        "--wait-for-event", type=float, metavar="SECONDS", help="wait this long for an event from DT to be stored"
    )
    return parser


def _run(options: argparse.Namespace, token: str, secrets: list[str]) -> None:
    if options.url and options.no_secret:
        _test_refusals(options.url, options.patience)
        _say("the first event that DT sends is the proof that true events are accepted")
    elif options.url:
        _test(options.url, secrets, options.documents, token, options.patience)
    if options.wait_for_event:
        _say(f"waiting up to {options.wait_for_event:g} s for an event from DT …")
        _say(wait_for_event(options.documents, token, options.wait_for_event))


def _test(url: str, secrets: list[str], documents: str, token: str, patience: float) -> None:
    event_id = f"{_SYNTHETIC}{uuid.uuid4().hex}"
    body = _body(event_id)
    new = "a new event: 200 (the function verifies the signature, and Firestore stores the event)"
    again = "the same event again: 200 (a repeated delivery is acknowledged; secret {} of {} is accepted)"
    try:
        _deliver_until_stored(url, body, secrets[0], patience, new)
        for number, secret in enumerate(secrets, 1):
            _deliver_until_stored(url, body, secret, patience, again.format(number, len(secrets)))
        tampered = body.replace(b"touch", b"motion")
        delivered = _deliver(url, tampered, _sign(body, secrets[0]))
        _expect_refusal("a tampered event", "a body that differs from its signature is refused", *delivered)
    finally:
        status, reason = _delete(f"{documents}/{event_id}", token)
    if status == 404:  # noqa: PLR2004 - an HTTP status
        raise WrongAnswerError(f"the document {event_id}, whose delivery was answered with 200, is not in {documents}")
    if status != 200:  # noqa: PLR2004 - an HTTP status
        answer = f"{status or 'nothing'} ({reason})"
        raise SmokeTestError(f"deleting the synthetic document {event_id} from Firestore was answered with {answer}")
    _say("the synthetic document was in Firestore, and is deleted")


def _test_refusals(url: str, patience: float) -> None:
    """Deliver an unsigned and a forged event; only DT can sign a true one."""
    body = _body(f"{_SYNTHETIC}{uuid.uuid4().hex}")
    limit = time.monotonic() + patience
    while (delivered := _post(url, body, {}))[0] not in (200, 400) and time.monotonic() < limit:
        _say(f"the endpoint does not answer yet: {_answer(*delivered)}")
        time.sleep(_PAUSE)
    _expect_refusal("an unsigned event", "nobody can store events without a signature", *delivered)
    forged = _sign(body, uuid.uuid4().hex)
    headers = {"X-Dt-Signature": forged, "DT-Asymmetric-Signature": forged}
    _expect_refusal("a forged event", "a signature that is not DT's is refused", *_post(url, body, headers))


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


def _deliver_until_stored(url: str, body: bytes, secret: str, patience: float, line: str) -> None:
    """Repeat a delivery until it is answered with 200.

    The roles and the public access of a new service take a while to become effective, and after a new revision old
    instances, which have another secret, may answer for a while.
    """
    began = time.monotonic()
    while True:
        status, answer = _deliver(url, body, _sign(body, secret))
        if status == 200:  # noqa: PLR2004 - an HTTP status
            return _say(line)
        limit = min(patience, _OLD_INSTANCES) if status == 400 else patience  # noqa: PLR2004 - an HTTP status
        if time.monotonic() - began > limit:
            raise _unexpected(line.partition(":")[0], status, answer, 200)
        _say(f"the endpoint does not accept events yet: {_answer(status, answer)}")
        time.sleep(_PAUSE)


def _expect_refusal(name: str, proof: str, status: int, answer: str) -> None:
    if status == 200:  # noqa: PLR2004 - an HTTP status
        raise WrongAnswerError(f"{name} was answered with 200 instead of 400: the endpoint verifies no signatures")
    if status != 400:  # noqa: PLR2004 - an HTTP status
        raise _unexpected(name, status, answer, 400)
    _say(f"{name}: 400 ({proof})")


def _unexpected(name: str, status: int, answer: str, wanted: int) -> SmokeTestError:
    """Return the error for an answer; without one, the fault may be this machine's."""
    kind = WrongAnswerError if status else SmokeTestError
    return kind(f"{name} was answered with {_answer(status, answer)} instead of {wanted}")


def _answer(status: int, answer: str) -> str:
    """Return what to print about an answer: status and reason, or why there is no answer."""
    return f"{status} ({_REASONS.get(status, answer)})" if status else f"nothing ({answer})"


def _deliver(url: str, body: bytes, token: str) -> tuple[int, str]:
    return _post(url, body, {"X-Dt-Signature": token})


# --- Firestore -------------------------------------------------------------------------------------------------------


def wait_for_event(documents: str, token: str, seconds: float, target: str = "", since: str = "") -> str:
    """Wait until an event from DT is in Firestore.

    Args:
        documents: URL of the collection in Firestore's REST API.
        token: an access token for it.
        seconds: how long to wait.
        target: the `targetName` of the event; empty for any device.
        since: an event that was stored before this time, as `database_time` returns it, does not count; empty for now,
            or with a target for all times.

    Returns:
        A line that describes the event.

    Raises:
        SmokeTestError: no event was stored, or Firestore refuses the query.
    """
    limit = time.monotonic() + seconds
    since = since or ("" if target else database_time(documents, token))
    while True:
        try:
            found = _newest(documents, token, target)
        except _TemporaryError as error:
            _say(f"{error}; trying again")
            found = []
        for document in found:
            if stored := _describe(document, since):
                return stored
        if time.monotonic() > limit:
            raise SmokeTestError(
                f"no event from DT was stored within {seconds:g} s: look at the Data Connector in DT Studio (its URL, "
                "its Error counter, whether it is enabled), then at docs/operations.md"
            )
        time.sleep(_PAUSE)


def database_time(documents: str, token: str) -> str:
    """Return the present time by Firestore's clock.

    Raises:
        SmokeTestError: Firestore refuses the query.
    """
    return str(_query(documents, token, {"limit": 1})[0]["readTime"])


def _newest(documents: str, token: str, target: str) -> list[dict[str, Any]]:
    """Return the newest events by their own time, or some events of a device."""
    if target:
        condition = {"field": {"fieldPath": "targetName"}, "op": "EQUAL", "value": {"stringValue": target}}
        query: dict[str, Any] = {}
    else:  # not the events whose timestamp is no time and was stored as a string, which an order puts first
        timestamp, epoch = {"fieldPath": "timestamp"}, {"timestampValue": "1970-01-01T00:00:00Z"}
        condition = {"field": timestamp, "op": "GREATER_THAN", "value": epoch}
        query = {"orderBy": [{"field": timestamp, "direction": "DESCENDING"}]}
    query = {"where": {"fieldFilter": condition}, "limit": 20, **query}
    return [each["document"] for each in _query(documents, token, query) if "document" in each]


def _query(documents: str, token: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    parent, _, collection = documents.rpartition("/")
    body = json.dumps({"structuredQuery": {"from": [{"collectionId": collection}], **query}}).encode()
    headers = {**_authorization(documents, token), "Content-Type": "application/json"}
    status, answer = _request("POST", f"{parent}:runQuery", headers, body)
    if status != 200:  # noqa: PLR2004 - an HTTP status
        kind = _TemporaryError if status in _TEMPORARY else SmokeTestError
        reason = _FIRESTORE_REASONS.get(status, answer)
        raise kind(f"Firestore answered the query with {status or 'nothing'} ({reason})")
    results: list[dict[str, Any]] = json.loads(answer)
    return results


def _describe(document: dict[str, Any], since: str) -> str | None:
    """Return a line about a document, or None for a synthetic event and for one that was stored earlier."""
    fields = document["fields"]
    received = fields.get("receivedAt", {}).get("timestampValue", "")
    name = document["name"].rpartition("/")[2]
    if name.startswith(_SYNTHETIC) or _instant(received) < _instant(since):
        return None
    kind, target = (fields.get(each, {}).get("stringValue", "?") for each in ("eventType", "targetName"))
    return f"an event from DT is in Firestore: {kind} of {target}, received at {received}"


def _instant(text: str) -> tuple[str, str]:
    """Return a key that orders the times of Firestore, which have 0 to 9 fractional digits."""
    return text[:19], text[19:].strip(".Z").ljust(9, "0")


def _delete(document: str, token: str) -> tuple[int, str]:
    """Delete a document that must exist; return the status and the reason, which is 404 if it does not exist."""
    headers = _authorization(document, token)
    try:
        status, answer = _request("DELETE", f"{document}?currentDocument.exists=true", headers, None)
    except SmokeTestError as error:  # must not hide what the endpoint answered
        return 0, str(error)
    return status, _FIRESTORE_REASONS.get(status, answer)


def _authorization(documents: str, token: str) -> dict[str, str]:
    project = documents.partition("/projects/")[2].partition("/")[0]
    return {"Authorization": f"Bearer {token}", "X-Goog-User-Project": project}


# --- HTTP ------------------------------------------------------------------------------------------------------------


def _request(method: str, url: str, headers: dict[str, str], body: bytes | None) -> tuple[int, str]:
    """Send a request.

    Returns:
        The status and the body; or 0 and the reason why there is no answer. A server that takes the request and does
        not answer in time counts as 504, which a gateway in front of it would answer.

    Raises:
        SmokeTestError: the server's certificate cannot be verified, so that a further attempt would not help.
    """
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - the user's own URL
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, " ".join(error.read().decode("utf-8", "replace").split())[:300]
    except socket.timeout:  # noqa: UP041 - Python 3.8; while connecting it is the reason of a URLError
        return 504, f"{urllib.parse.urlsplit(url).hostname} does not answer within {_TIMEOUT:g} s"
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return 0, _no_answer(urllib.parse.urlsplit(url).hostname or url, reason)


def _no_answer(host: str, reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise SmokeTestError(
            f"the certificate of {host} cannot be verified ({reason.verify_message}); if {sys.executable} has no "
            "certificates of its own, set SSL_CERT_FILE to a file with them"
        )
    if isinstance(reason, socket.gaierror):
        return f"the name {host} cannot be resolved: {reason.strerror}"
    if isinstance(reason, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(reason, (socket.timeout, TimeoutError)):
        return f"no connection to {host} within {_TIMEOUT:g} s"
    return f"the connection to {host} failed: {reason or type(reason).__name__}"


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
