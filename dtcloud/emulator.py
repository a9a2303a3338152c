"""Publishes an event through an emulated sensor of a DT project, with DT's emulator API."""

from datetime import UTC, datetime

from disruptive import Device, Emulator
from disruptive.events import Touch

from dtcloud.errors import explained

EVENT_TYPE = "touch"

_TIMEOUT = 30.0  # seconds


class EmulatorError(Exception):
    """Raised if DT's emulator refuses a request or cannot be reached; the text gives the reason."""


def create(project: str, name: str) -> Device:
    """Create an emulated touch sensor.

    Args:
        project: DT's project id.
        name: its display name.

    Raises:
        EmulatorError: DT's emulator refuses it.
    """
    with explained(EmulatorError):
        # The package keeps the name of an earlier sensor in its own default for `labels`.
        return Emulator.create_device(project, Device.TOUCH, name, labels={}, request_timeout=_TIMEOUT)


def touch(sensor: Device) -> None:
    """Publish a touch event.

    Raises:
        EmulatorError: DT's emulator refuses it.
    """
    with explained(EmulatorError):
        Emulator.publish_event(sensor.device_id, sensor.project_id, Touch(datetime.now(UTC)), request_timeout=_TIMEOUT)


def delete(sensor: Device) -> None:
    """Delete an emulated sensor.

    Raises:
        EmulatorError: DT's emulator refuses it.
    """
    with explained(EmulatorError):
        Emulator.delete_device(sensor.device_id, sensor.project_id, request_timeout=_TIMEOUT)
