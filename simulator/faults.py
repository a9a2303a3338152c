"""The faults of a Data Connector and of a forger: their command-line options and the bodies that they send.

Pure, except for reading the options.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from random import Random
from typing import Any

import click

from command_line import COUNT, SHARE
from simulator.sensors import device, encode, envelope, event

_BACKFILL_INTERVAL = timedelta(minutes=15)  # between two samples that a sensor stored

Bodies = Iterator[tuple[datetime, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the delivery of an event.

    Attributes:
        name: of the option, in the plural.
        help: of the option.
        soak_rate: share of the events that have this fault in a soak.
    """

    name: str
    help: str
    soak_rate: float


FAULTS = (
    Fault("duplicates-at-once", "Send the event twice at the same time.", 0.05),
    Fault("duplicates-later", "Send the event again 1 to 5 s later, acknowledged or not.", 0.03),
    Fault("duplicates-after-success", "Send the event again after its 2xx.", 0.05),
    Fault("early-closes", "Close the first attempt's connection before the answer.", 0.03),
    Fault("slow-bodies", "Send the first attempt's body in pieces, over a second.", 0.03),
    Fault("chunked-bodies", "Send the first attempt's body in chunks, without Content-Length.", 0.03),
    Fault("tampered-bodies", "Also send a copy that was altered after it was signed.", 0.04),
    Fault("wrong-secrets", "Also send a forged event, signed with another secret and key.", 0.03),
    Fault("expired-tokens", "Also send a forged event whose tokens have expired.", 0.02),
    Fault("unknown-types", "Change the event's type to an unknown one.", 0.03),
    Fault("unknown-fields", "Add unknown fields to the body and the event.", 0.03),
    Fault("unprocessable-bodies", "Also send an authentic body that is not a valid document.", 0.01),
)
NAMES = tuple(fault.name for fault in FAULTS)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the fault options.

    Attributes:
        rates: from 0 to 1, by fault.
        same_token: retries carry the first attempt's tokens.
        backfill: the size of a burst of old events.
        morning: the number of sensors that send their heartbeats in one second.
    """

    rates: Mapping[str, float]
    same_token: bool = False
    backfill: int = 0
    morning: int = 0


def options(*, soak: bool = False) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Return a decorator that adds the fault options to a click command, which receives them as `wanted: Settings`.

    Args:
        soak: whether the default rates are those of a soak, or 0.
    """

    def decorate(command: Callable[..., int | None]) -> Callable[..., int | None]:
        @wraps(command)
        def with_settings(*, same_token: bool, backfill: int | None, morning: int | None, **others: Any) -> int | None:
            rates = {name: others.pop(name.replace("-", "_")) for name in NAMES}
            return command(wanted=Settings(rates, same_token, backfill or 0, morning or 0), **others)

        decorated: Callable[..., int | None] = with_settings
        for option in reversed([*_rate_options(soak=soak), *_BURSTS]):
            decorated = option(decorated)
        return decorated

    return decorate


def _rate_options(*, soak: bool) -> Iterator[Callable[..., Any]]:
    for fault in FAULTS:
        rate = fault.soak_rate if soak else 0.0
        name = f"--{fault.name}"
        yield click.option(name, metavar="SHARE", type=SHARE, default=rate, show_default=True, help=fault.help)


_BURSTS = (
    click.option("--same-token", is_flag=True, help="Send the first attempt's tokens again in retries."),
    click.option("--backfill", metavar="N", type=COUNT, help="Add a burst of N old events, newest first."),
    click.option("--morning", metavar="N", type=COUNT, help="Add the heartbeats of N sensors in one second."),
)


def draw(rates: Mapping[str, float], rng: Random) -> frozenset[str]:
    """Draw the faults of the next event.

    Args:
        rates: by fault.
        rng: gives the same number of draws for every event, so that the rate of one fault does not affect another.
    """
    return frozenset(name for name in NAMES if rng.random() < rates.get(name, 0.0))


def change_schema(body: Mapping[str, Any], faults: frozenset[str]) -> dict[str, Any]:
    """Return the event with an unknown type or unknown fields if it has one of these faults; it stays valid."""
    content, around = dict(body["event"]), {name: value for name, value in body.items() if name != "event"}
    if "unknown-types" in faults:
        content |= {"eventType": "vibration", "data": {"vibration": {"hertz": [50, 99.5], "axes": {"x": 1, "y": None}}}}
    if "unknown-fields" in faults:
        content |= {"sequence": 2**53 + 1, "confidence": 1.0, "origin": {"Gerät": ["ü", True, {"list": []}, 0.5]}}
        around |= {"schema": "2", "delivery": {"attemptsAllowed": 7, "regions": ["eu", "us"]}}
    return {"event": content, **around}


def tampered(body: bytes, rng: Random) -> tuple[str, bytes]:
    """Return a copy of a valid event, altered after it was signed, and before it the copy's eventId.

    Args:
        body: the signed body.
        rng: decides whether the copy has the event's own id or another one.
    """
    altered = json.loads(body)
    if rng.random() < 0.5:  # noqa: PLR2004 - half of them
        altered["event"]["eventId"] += "t"
    altered["labels"] = {"name": "tampered"}
    return altered["event"]["eventId"], encode(altered)


def forged(body: bytes, suffix: str) -> tuple[str, bytes]:
    """Return the eventId and the body of an event that no sensor sent.

    Args:
        body: of a valid event.
        suffix: makes the eventId unique.
    """
    invented = json.loads(body)
    invented["event"]["eventId"] += suffix
    return invented["event"]["eventId"], encode(invented)


def unprocessable(rng: Random) -> bytes:
    """Return a unique body that is not a valid document, for one of several reasons."""
    unique = rng.randbytes(10).hex()
    return rng.choice(_UNPROCESSABLE).replace("UNIQUE", unique).encode()


_DEEP = '{"a":' * 30 + "1" + "}" * 30
_UNPROCESSABLE = (
    '{"event":{"eventId":"UNIQUE"',
    '["UNIQUE"]',
    '{"event":{"eventType":"touch","note":"UNIQUE"}}',
    '{"event":{"eventId":"UNIQUE/UNIQUE"}}',
    '{"event":{"eventId":"UNIQUE","data":[[1]]}}',
    f'{{"event":{{"eventId":"UNIQUE","data":{2**63}}}}}',
    '{"event":{"eventId":"UNIQUE","data":NaN}}',
    '{"event":{"eventId":"UNIQUE","data":{"__all__":1}}}',
    '{"event":{"eventId":"UNIQUE","data":"\\ud800"}}',
    f'{{"event":{{"eventId":"UNIQUE","data":{_DEEP}}}}}',
)


def backfilled(number: int, rng: Random, now: datetime) -> Bodies:
    """Yield the burst of a sensor that was out of range: due now, newest first, marked as back-filled.

    Args:
        number: the number of events.
        rng: draws the values.
        now: when all of them are due.
    """
    source = device("temperature", "Back-filling freezer")
    for age in range(1, number + 1):
        content = event("temperature", rng=rng, now=now - age * _BACKFILL_INTERVAL, source=source)
        content["data"]["temperature"]["isBackfilled"] = True
        yield now, envelope(content, source)


def morning(number: int, rng: Random, now: datetime) -> Bodies:
    """Yield the heartbeats of a whole fleet within one second.

    Args:
        number: the number of sensors.
        rng: draws the values.
        now: the start of the second.
    """
    for index in range(number):
        due = now + timedelta(seconds=index / number)
        source = device("temperature", f"Sensor {index + 1}")
        yield due, envelope(event("networkStatus", rng=rng, now=due, source=source), source)
