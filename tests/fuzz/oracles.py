"""Checks the answers, the store, the log and the function's memory after hostile requests."""

import hashlib
import json
import math
import statistics
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests import signing
from tests.fuzz.hostile import (
    MARK,
    MEBIBYTE,
    METHOD,
    NO_ROUTE,
    NOT_HTTP,
    QUARANTINED,
    STORED,
    TOO_LARGE,
    UNVERIFIED,
    Request,
)
from tests.fuzz.tokens import JSON_IN_BASE64, TOKEN_MARK

_LEAKS = (signing.SECRET[:32].encode(), MARK.encode(), TOKEN_MARK, JSON_IN_BASE64)
_MEMORY_SLACK = 24 * MEBIBYTE  # what an allocator may keep of a few bodies of 1 MiB
_TEXTS_OF_400 = {b"Could not verify request.": UNVERIFIED, b"Invalid HTTP request received.": NOT_HTTP}
_TEXTS_OF_400[b""] = NOT_HTTP  # the answer to a HEAD has no text; the function itself answers 405
_BY_STATUS = {200: STORED, 404: NO_ROUTE, 307: NO_ROUTE, 405: METHOD, 413: TOO_LARGE}
_SEVERITIES = {
    "stored": ("INFO", 200),
    "already_stored": ("INFO", 200),
    "unverified": ("WARNING", 400),
    "quarantined": ("ERROR", 400),
    "too_large": ("WARNING", 413),
    "method": ("WARNING", 405),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its verdict and its bytes."""

    verdict: str
    raw: bytes = b""


def verdict(status: int, text: bytes) -> str:
    """Return the verdict of an answer."""
    if status == 400:
        return _TEXTS_OF_400.get(text, QUARANTINED)
    return _BY_STATUS.get(status, f"status {status}")


@dataclass(slots=True)
class Ledger:
    """Records requests and answers, and compares them with the store.

    Attributes:
        verdicts: the number of answers of each verdict.
        kinds: the number of requests of each kind.
        findings: one text for each broken promise.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    _signed_ids: set[str] = field(default_factory=set)
    _signed_hashes: set[str] = field(default_factory=set)
    _stored_ids: set[str] = field(default_factory=set)
    _kept_hashes: set[str] = field(default_factory=set)

    def enter(self, request: Request) -> None:
        """Record a request before it is sent."""
        self.kinds[request.kind] += 1
        self._signed_ids.update(filter(None, map(event_id, request.signed)))
        self._signed_hashes.update(map(_key, request.signed))

    def judge(self, request: Request, answers: list[Answer], name: str) -> None:
        """Check the answers, and record what they promise.

        Args:
            request: the request.
            answers: in order.
            name: the command that sends the request again.
        """
        self.verdicts.update(answer.verdict for answer in answers)
        for answer in answers:
            if answer.verdict not in request.right:
                wrong = answer.raw[:300] or answer.verdict
                self.blame(request, f"{wrong!r}, not {sorted(request.right)}", name)
            if any(leak in answer.raw for leak in _LEAKS):
                self.blame(request, "the answer repeats the request", name)
        for body, answer in zip(request.signed, answers, strict=False):
            if answer.verdict == STORED:
                self._stored_ids.add(event_id(body) or "")
            elif answer.verdict == QUARANTINED:
                self._kept_hashes.add(_key(body))

    def blame(self, request: Request, problem: str, name: str) -> None:
        """Add a finding about one request.

        Args:
            request: the request.
            problem: what is wrong with the result.
            name: the command that sends the request again.
        """
        data = b"".join(request.pieces)
        more = f" … {len(data):,} bytes in all" if len(data) > 1500 else ""
        self.findings.append(f"{request.kind}: {problem}\n{name}\n  {data[:1500]!r}{more}")

    def check_store(self, events: set[str], quarantine: set[str]) -> None:
        """Compare the keys of both collections with what was signed and acknowledged."""
        for problem, keys in {
            "stored, but in no signed body": events - self._signed_ids,
            "in quarantine, but not the hash of a signed body": quarantine - self._signed_hashes,
            "acknowledged, but not stored": self._stored_ids - events,
            "answered as quarantined, but not in quarantine": self._kept_hashes - quarantine,
        }.items():
            self.findings += [f"{key!r} is {problem}" for key in sorted(keys)[:5]]

    def check_log(self, lines: list[str]) -> None:
        """Check that every line of the log follows the contract and none holds a secret, a token or a body."""
        for number, text in enumerate(lines, 1):
            if any(leak in text.encode() for leak in _LEAKS):
                self.findings.append(f"line {number} of the log holds a secret, a token or a body: {text[:2000]}")
            elif not _is_log_line(text):
                self.findings.append(f"line {number} of the log does not follow the contract: {text[:2000]}")

    def check_memory(self, samples: list[int]) -> None:
        """Check that the function's memory, sampled at equal intervals in bytes, does not grow."""
        early, late = early_and_late(samples)
        if late > early + _MEMORY_SLACK:
            self.findings.append(f"the function's memory grew from {early:,} to {late:,} bytes")


def early_and_late(samples: list[int]) -> tuple[int, int]:
    """Return the medians of the first and of the last fifth of the samples."""
    fifth = math.ceil(len(samples) / 5)
    return int(statistics.median(samples[:fifth])), int(statistics.median(samples[-fifth:]))


def event_id(body: bytes) -> str | None:
    """Return the eventId of a body; None if it is missing or not a string."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(body)["event"]["eventId"]
        return found if isinstance(found, str) else None
    return None


def _key(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _is_log_line(text: str) -> bool:
    try:
        line = json.loads(text)
        return (line["severity"], line["status"]) == _SEVERITIES[line["outcome"]] and isinstance(line["message"], str)
    except (ValueError, TypeError, KeyError):
        return False
