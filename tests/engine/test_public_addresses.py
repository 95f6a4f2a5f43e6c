"""What is public: addresses of the special registries are not, whatever they are wrapped in."""

import pytest

from engine.model.public_addresses import is_public_address, is_public_host


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public(address: str) -> None:
    assert is_public_address(address)
    assert is_public_host(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "168.63.129.16", "::ffff:168.63.129.16", "::", "::1",
        "fe80::1", "fe80::1%eth0", "fd00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808", "2002:7f00:1::1", "2002:a00:1::", "2001:0:808:808::1", "example.org", "",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "redis", "LOCALHOST.", "x.localhost", "printer.local", "db.internal", "nas.home.arpa",
        "metadata.google.internal.", "2130706433", "127.0.0.1", "::1", "0x7f.1", "127.1", "127.1.", "0177.0.0.1", "8.0x8",
    ],
)  # fmt: skip
def test_hosts_that_are_local(host: str) -> None:
    assert not is_public_host(host)


def test_names_are_judged_when_they_are_called() -> None:
    assert is_public_host("crm.example.org")
    assert is_public_host("crm.example.org.")
