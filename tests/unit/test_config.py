"""Settings: where they come from, which source wins, and what is said of a wrong one."""

from pathlib import Path

import pytest

from cumulet.config import SETTINGS, Settings, SettingsError, load


def write(path: Path, text: str) -> Path:
    file = path / "cumulet.toml"
    file.write_text(text)
    return file


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, 'port_offset = 1\nregion = "file"\nbind = "127.0.0.9"\n')
    environ = {"CUMULET_PORT_OFFSET": "2", "CUMULET_REGION": "environment", "HOME": "/nowhere"}
    settings = load({"port_offset": "3", "region": None}, environ, file)
    assert (settings.port_offset, settings.region, settings.bind) == (3, "environment", "127.0.0.9")
    assert settings.public_cidr == "172.24.4.0/24"


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "stop_servers = true\n")
    assert load(environ={"CUMULET_CONFIG": str(file)}).stop_servers is True


def test_a_variable_set_to_nothing_is_not_set() -> None:
    assert load(environ={"CUMULET_GUEST_IMAGE": "", "CUMULET_REGION": ""}).region == "RegionOne"


def test_values_have_their_types(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    image.touch()
    environ = {"CUMULET_DATA": "~/cloud", "CUMULET_STOP_SERVERS": "true", "CUMULET_GUEST_IMAGE": str(image)}
    settings = load(environ=environ)
    assert settings.data == Path.home() / "cloud"
    assert settings.stop_servers is True
    assert settings.find_guest_image() == image


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "says"),
    [
        ({}, {"CUMULET_PORTOFFSET": "1"}, "", r"CUMULET_PORTOFFSET is not a setting; did you mean `port_offset`\?"),
        ({}, {}, "regoin = 'x'", r"`regoin` in .*cumulet.toml is not a setting; did you mean `region`\?"),
        ({}, {"CUMULET_ZZZZZ": "1"}, "", "the settings are: data, bind"),
        ({}, {"CUMULET_PORT_OFFSET": "many"}, "", "CUMULET_PORT_OFFSET=many: expected a whole number"),
        ({}, {}, "port_offset = '5'", r"`port_offset` in .*: expected a whole number, got text"),
        ({"port_offset": "30001"}, {}, "", "--port-offset: expected a whole number <= 30000"),
        ({"hypervisor": "xen"}, {}, "", "--hypervisor: must be one of auto, qemu, simulated"),
        ({"bind": "localhost"}, {}, "", "`bind` is 'localhost', but must be an IP address"),
        ({"public_cidr": "172.24.4.1/24"}, {}, "", "`public_cidr` is '172.24.4.1/24'"),
        ({"guest_image": "/no/such.qcow2"}, {}, "", "names /no/such.qcow2, which is no file"),
        ({"image_property_protections": "/no/such"}, {}, "", "names /no/such, which is no file"),
        ({"image_metadefs": "/no/such"}, {}, "", "names /no/such, which is no directory"),
        ({}, {}, "region = ", "is no valid TOML"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], toml: str, says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        load(flags, environ, write(tmp_path, toml))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*absent.toml: No such file"):
        load(environ={}, file=tmp_path / "absent.toml")


def test_every_setting_has_a_sentence_and_a_default() -> None:
    assert sorted(row.name for row in SETTINGS) == sorted(Settings.__struct_fields__)
    for row in SETTINGS:
        assert row.description.endswith("."), row.name
        assert row.default, row.name
        assert row.flag == f"--{row.name.replace('_', '-')}"


def test_the_database_is_in_the_data_directory_unless_set(tmp_path: Path) -> None:
    assert load({"data": str(tmp_path)}, {}).database_url == f"sqlite:///{tmp_path}/cumulet.sqlite"
    assert load({"database": "mysql+pymysql://db/cumulet"}, {}).database_url == "mysql+pymysql://db/cumulet"


def test_urls_name_an_address_that_can_be_reached() -> None:
    assert load({"bind": "127.0.0.7"}, {}).endpoint_address == "127.0.0.7"
    assert load({"bind": "0.0.0.0", "endpoint_host": "cloud.example"}, {}).endpoint_address == "cloud.example"
    assert load({"bind": "0.0.0.0"}, {}).endpoint_address not in ("0.0.0.0", "")
