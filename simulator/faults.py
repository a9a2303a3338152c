"""What a Data Connector, and whoever poses as one, can do wrong: which faults there are, and what they send. Pure."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from simulator.arguments import share, whole
from simulator.sensors import device, encode, envelope, event

_BACKFILL_INTERVAL = timedelta(minutes=15)  # between the samples that a sensor kept

Bodies = Iterator[tuple[datetime, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an event's delivery goes wrong.

    Attributes:
        name: of the option, in the plural.
        help: what happens.
        soak: its rate in a soak: the share of events that it happens to.
    """

    name: str
    help: str
    soak: float


FAULTS = (
    Fault("duplicates-at-once", "the event is sent twice at the same time", 0.05),
    Fault("duplicates-later", "the event is sent again 1 to 5 s later, whatever became of it until then", 0.03),
    Fault("duplicates-after-success", "the event is sent again after its 2xx", 0.05),
    Fault("early-closes", "the first attempt's connection is closed before the answer is read", 0.03),
    Fault("slow-bodies", "the first attempt's body comes in pieces, over a second", 0.03),
    Fault("chunked-bodies", "the first attempt's body comes in chunks, its length not announced", 0.03),
    Fault("tampered-bodies", "beside the event goes a copy whose body was altered after it was signed", 0.04),
    Fault("wrong-secrets", "beside the event goes a forged one, signed with another secret", 0.03),
    Fault("expired-tokens", "beside the event goes a forged one, whose token has expired", 0.02),
    Fault("unknown-types", "the event is of a type that nobody knows yet", 0.03),
    Fault("unknown-fields", "the body and the event have fields that nobody knows yet", 0.03),
    Fault("poisonous-bodies", "beside the event goes an authentic body that can be no document", 0.01),
)
NAMES = tuple(fault.name for fault in FAULTS)


def configure(parser: argparse.ArgumentParser, *, soak: bool = False) -> None:
    """Add an option for each fault.

    Args:
        parser: the sub-command's.
        soak: whether the rates are those of a soak, or 0.
    """
    group = parser.add_argument_group("faults", "each with its rate: the share of events that it happens to")
    for fault in FAULTS:
        rate = fault.soak if soak else 0.0
        group.add_argument(
            f"--{fault.name}", metavar="RATE", type=share, default=rate, help=f"{fault.help}; default: {rate:g}"
        )
    group.add_argument("--same-token", action="store_true", help="retries carry the first attempt's token again")
    group.add_argument("--backfill", metavar="N", type=whole, help="a burst of so many old events, newest first")
    group.add_argument("--morning", metavar="N", type=whole, help="the heartbeats of so many sensors in one second")


def rates(arguments: argparse.Namespace) -> dict[str, float]:
    """Return each fault's rate, by its name.

    Args:
        arguments: those of `configure`.

    Returns:
        From 0 to 1 each.
    """
    return {name: getattr(arguments, name.replace("-", "_")) for name in NAMES}


def draw(wanted: Mapping[str, float], rng: Random) -> frozenset[str]:
    """Decide what happens to the next event.

    Args:
        wanted: rates by name.
        rng: takes the same number of draws for every event, so that one fault's rate does not change another's course.

    Returns:
        The names of the faults.
    """
    return frozenset(name for name in NAMES if rng.random() < wanted.get(name, 0.0))


def disguise(body: Mapping[str, Any], faults: frozenset[str]) -> dict[str, Any]:
    """Give an event an unknown type or unknown fields, if that is what happens to it.

    Args:
        body: as a Data Connector posts it.
        faults: names.

    Returns:
        The body, which is as true as before.
    """
    content, around = dict(body["event"]), {name: value for name, value in body.items() if name != "event"}
    if "unknown-types" in faults:
        content |= {"eventType": "vibration", "data": {"vibration": {"hertz": [50, 99.5], "axes": {"x": 1, "y": None}}}}
    if "unknown-fields" in faults:
        content |= {"sequence": 2**53 + 1, "confidence": 1.0, "origin": {"Gerät": ["ü", True, {"list": []}, 0.5]}}
        around |= {"schema": "2", "delivery": {"attemptsAllowed": 7, "regions": ["eu", "us"]}}
    return {"event": content, **around}


def tampered(body: bytes, rng: Random) -> tuple[str, bytes]:
    """Alter a body after it was signed.

    Args:
        body: of a true event.
        rng: decides whether the copy poses as the same event, or as another one.

    Returns:
        The eventId that the copy bears, and the copy.
    """
    altered = json.loads(body)
    if rng.random() < 0.5:  # noqa: PLR2004 - one half and the other
        altered["event"]["eventId"] += "t"
    altered["labels"] = {"name": "tampered"}
    return altered["event"]["eventId"], encode(altered)


def forged(body: bytes, mark: str) -> tuple[str, bytes]:
    """Make an event that nobody measured.

    Args:
        body: of a true event.
        mark: ends the eventId, which is nobody's else.

    Returns:
        Its eventId and its body.
    """
    invented = json.loads(body)
    invented["event"]["eventId"] += mark
    return invented["event"]["eventId"], encode(invented)


def poison(rng: Random) -> bytes:
    """Make an authentic body that can be no document.

    Args:
        rng: chooses what is wrong with it, and makes it unique.

    Returns:
        The body.
    """
    mark = rng.randbytes(10).hex()
    return rng.choice(_POISONS)(mark).encode()


_DEEP = '{"a":' * 30 + "1" + "}" * 30
_POISONS: tuple[Callable[[str], str], ...] = (
    lambda mark: f'{{"event":{{"eventId":"{mark}"',
    lambda mark: f'["{mark}"]',
    lambda mark: f'{{"event":{{"eventType":"touch","note":"{mark}"}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}/{mark}"}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":[[1]]}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":{2**63}}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":NaN}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":{{"__all__":1}}}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":"\\ud800"}}}}',
    lambda mark: f'{{"event":{{"eventId":"{mark}","data":{_DEEP}}}}}',
)


def backfilled(number: int, rng: Random, now: datetime) -> Bodies:
    """Make the burst of a sensor that was out of reach for long.

    Args:
        number: how many events.
        rng: draws the values.
        now: when they are all due.

    Yields:
        When it is due, and the body: newest first, marked as back-filled.
    """
    source = device("temperature", "Back-filling freezer")
    for age in range(1, number + 1):
        content = event("temperature", rng=rng, now=now - age * _BACKFILL_INTERVAL, source=source)
        content["data"]["temperature"]["isBackfilled"] = True
        yield now, envelope(content, source)


def morning(number: int, rng: Random, now: datetime) -> Bodies:
    """Make the heartbeats of a whole fleet in one second.

    Args:
        number: how many sensors.
        rng: draws the values.
        now: when the second begins.

    Yields:
        When it is due, and the body.
    """
    for index in range(number):
        due = now + timedelta(seconds=index / number)
        source = device("temperature", f"Sensor {index + 1}")
        yield due, envelope(event("networkStatus", rng=rng, now=due, source=source), source)
