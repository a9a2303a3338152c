"""What must hold after hostile requests: of the answers, the store, the log, and the function's memory."""

import hashlib
import json
import math
import statistics
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests import signing
from tests.fuzz.hostile import (
    JSON_IN_BASE64,
    MARK,
    MEBIBYTE,
    METHOD,
    NO_ROUTE,
    NOT_HTTP,
    QUARANTINED,
    STORED,
    TOKEN_MARK,
    TOO_LARGE,
    UNVERIFIED,
    Request,
)

_LEAKS = (signing.SECRET[:32].encode(), MARK.encode(), TOKEN_MARK, JSON_IN_BASE64)
_MEMORY_SLACK = 24 * MEBIBYTE  # what an allocator keeps of a few bodies of 1 MiB more or less
_TEXTS_OF_400 = {b"Could not verify request.": UNVERIFIED, b"Invalid HTTP request received.": NOT_HTTP}
_TEXTS_OF_400[b""] = NOT_HTTP  # the answer to a HEAD has no text, and the function has 405 for it
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
    """One answer.

    Attributes:
        verdict: what it means.
        raw: its bytes.
    """

    verdict: str
    raw: bytes = b""


def verdict(status: int, text: bytes) -> str:
    """Return what an answer of this status and text means."""
    if status == 400:
        return _TEXTS_OF_400.get(text, QUARANTINED)
    return _BY_STATUS.get(status, f"status {status}")


@dataclass(slots=True)
class Ledger:
    """What was sent, what must have come of it, and what is wrong.

    Attributes:
        verdicts: how often each verdict was given.
        kinds: how many requests of each kind were sent.
        findings: one text each.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    _signed_ids: set[str] = field(default_factory=set)
    _signed_hashes: set[str] = field(default_factory=set)
    _stored_ids: set[str] = field(default_factory=set)
    _kept_hashes: set[str] = field(default_factory=set)

    def enter(self, request: Request) -> None:
        """Take down a request before it is sent."""
        self.kinds[request.kind] += 1
        self._signed_ids.update(filter(None, map(event_id, request.signed)))
        self._signed_hashes.update(map(_key, request.signed))

    def judge(self, request: Request, answers: list[Answer], name: str) -> None:
        """Compare the answers with what is right, and remember what they promise.

        Args:
            request: what was sent.
            answers: what came, in order.
            name: tells how to send it again.
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
            request: what was sent.
            problem: what is wrong with what came of it.
            name: tells how to send it again.
        """
        data = b"".join(request.pieces)
        more = f" … {len(data):,} bytes in all" if len(data) > 1500 else ""
        self.findings.append(f"{request.kind}: {problem}\n{name}\n  {data[:1500]!r}{more}")

    def check_store(self, events: set[str], quarantine: set[str]) -> None:
        """Compare what is stored with what was signed and acknowledged.

        Args:
            events: the keys of the events.
            quarantine: the keys of the quarantine.
        """
        for problem, keys in {
            "stored, and was in no signed body": events - self._signed_ids,
            "in quarantine, and is the hash of no signed body": quarantine - self._signed_hashes,
            "acknowledged, and is not stored": self._stored_ids - events,
            "said to be in quarantine, and is not": self._kept_hashes - quarantine,
        }.items():
            self.findings += [f"{key!r} is {problem}" for key in sorted(keys)[:5]]

    def check_log(self, lines: list[str]) -> None:
        """Look for what must not be in the function's log.

        Args:
            lines: all of it.
        """
        for number, text in enumerate(lines, 1):
            if any(leak in text.encode() for leak in _LEAKS):
                self.findings.append(f"line {number} of the log holds a secret, a token or a body: {text[:2000]}")
            elif not _is_log_line(text):
                self.findings.append(f"line {number} of the log is none of the contract's: {text[:2000]}")

    def check_memory(self, samples: list[int]) -> None:
        """Compare the function's memory early and late.

        Args:
            samples: bytes, evenly spread over the run after its start.
        """
        early, late = early_and_late(samples)
        if late > early + _MEMORY_SLACK:
            self.findings.append(f"the function's memory grew from {early:,} to {late:,} bytes")


def early_and_late(samples: list[int]) -> tuple[int, int]:
    """Return the median of the first fifth of the samples, and that of the last."""
    fifth = math.ceil(len(samples) / 5)
    return int(statistics.median(samples[:fifth])), int(statistics.median(samples[-fifth:]))


def event_id(body: bytes) -> str | None:
    """Return the eventId in a body; None if there is none that is a string."""
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
