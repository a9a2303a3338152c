"""A short soak of the repair, and the same outages without it."""

import asyncio
import re

import pytest

from tests.soak import repair

_SHORT = ["--minutes", "0.12", "--time-factor", "172800", "--store", "embedded", "--seed", "3"]


def test_nothing_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """The connector discards events and is switched off, and repairs are killed: at the end nothing is missing."""
    status = repair.main(_SHORT)

    out = capfd.readouterr().out
    assert status == 0, out
    assert "CLEAN: every event is stored once" in out
    assert re.search(r"'(discarded|not sent)': [1-9]", out)  # on a slow machine no retry may come after its 12 hours
    assert "'switched off': 1" in out


def test_the_repair_is_the_only_remedy(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a repair the same soak finds missing events and a connector that is switched off."""

    async def never(_: repair.RepairSoak) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(repair.RepairSoak, "_repair_regularly", never)
    monkeypatch.setattr(repair.RepairSoak, "_repair_to_the_end", never)

    status = repair.main(_SHORT)

    out = capfd.readouterr().out
    assert status == 1
    assert re.search(r"\d+ missing", out)
    assert "the Data Connector is SYSTEM_DISABLED" in out
