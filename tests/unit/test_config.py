"""Where a setting comes from, and what is said about one that cannot be right."""

from pathlib import Path

import pytest

from ntmd import config
from ntmd.config import Settings, load
from ntmd.runtime.complaints import Complaint


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "etc.toml")
    return tmp_path / "etc.toml"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_without_anything_the_defaults_hold(system: Path) -> None:
    assert load({}, {}) == Settings()


def test_each_source_beats_the_next(system: Path, state: Path) -> None:
    system.write_text('interface = "a0"\nport = 1\ndns = "off"\nplane = "python"\n')
    (state / "ntmd.toml").write_text('interface = "b0"\nport = 2\ndns = "file"\n')
    environment = {"NTMD_INTERFACE": "c0", "NTMD_PORT": "3", "NTMD_STATE": str(state)}
    settings = load({"interface": "d0"}, environment)
    found = (settings.interface, settings.port, settings.dns, settings.plane)
    assert found == ("d0", 3, "file", "python")


def test_the_state_directory_may_come_from_the_system_file(system: Path, state: Path) -> None:
    system.write_text(f'state = "{state}"\n')
    (state / "ntmd.toml").write_text('interface = "b0"\n')
    settings = load({}, {})
    assert (settings.state, settings.interface) == (state, "b0")
    assert settings.socket == state / "ntmd.sock"


def test_the_default_state_has_its_socket_in_run() -> None:
    assert Settings().socket == Path("/run/ntmd/ntmd.sock")


def test_arguments_lead_to_the_same_settings(system: Path, state: Path) -> None:
    settings = load(
        {"state": str(state), "port": 5, "trace": "/x/t", "verbosity": -1, "name": "desk"}, {}
    )
    given = dict(item.removeprefix("--").split("=", 1) for item in settings.arguments())
    assert load(given, {"NTMD_PORT": "9"}) == settings


def test_metered_interfaces_are_a_list_or_a_text_with_commas(system: Path, state: Path) -> None:
    system.write_text('metered = ["wwan0", "usb0"]\n')
    settings = load({"state": str(state)}, {})
    assert settings.metered == ("wwan0", "usb0")
    given = dict(item.removeprefix("--").split("=", 1) for item in settings.arguments())
    assert load(given, {"NTMD_METERED": "eth9"}) == settings
    assert load({}, {"NTMD_METERED": "eth9,"}).metered == ("eth9",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "x"),
        ("metered", ["a/b"]),
        ("metered", 7),
        ("port", "65536"),
        ("port", "-1"),
        ("dns", "maybe"),
        ("rekey", 2),
        ("rekey", "121"),
        ("plane", "rust"),
        ("interface", "far-too-long-name"),
        ("interface", "a/b"),
        ("interface", "a b"),
        ("interface", ""),
        ("state", ""),
        ("verbosity", "loud"),
        ("colour", "red"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(system: Path, key: str, value: str) -> None:
    with pytest.raises(Complaint, match=key) as caught:
        load({key: value}, {})
    assert caught.value.exit_code == 2
    assert "the command line" in caught.value.text


@pytest.mark.parametrize(
    "text", ["port = ", "port = 'x'", "colour = 1", "\x00", "[port]\na = 1", "state = 1\nx = 2"]
)
def test_a_wrong_file_is_named(system: Path, text: str) -> None:
    system.write_text(text)
    with pytest.raises(Complaint) as caught:
        load({}, {})
    assert str(system) in caught.value.text


def test_an_empty_variable_is_no_setting(system: Path) -> None:
    assert load({}, {"NTMD_PORT": "", "NTMD_UNRELATED": "1"}) == Settings()


def test_a_proxy_and_its_exceptions_may_come_from_the_customary_variables(system: Path) -> None:
    usual = {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.test", "NO_PROXY": "b.test"}
    assert (load({}, usual).proxy, load({}, usual).no_proxy) == ("http://p:1", "a.test")
    own = usual | {"NTMD_PROXY": "none", "NTMD_NO_PROXY": "c.test"}
    assert (load({}, own).proxy, load({}, own).no_proxy) == ("none", "c.test")
    assert "--no_proxy=c.test" in load({}, own).arguments()
