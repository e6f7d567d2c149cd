"""Which proxy, and for whom there is none."""

import pytest

from ntmd.runtime.proxy import parse_proxy


@pytest.mark.parametrize(
    ("exempt", "host", "served"),
    [
        ("", "192.0.2.1", True),
        ("*", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.10", True),
        ("localhost, 192.0.2.0/24", "192.0.2.77", False),
        ("192.0.2.0/24", "192.0.3.1", True),
        ("192.0.2.5/24", "192.0.2.1", False),
        ("2001:db8::/32", "2001:db8::7", False),
        ("[2001:db8::7]", "2001:db8::7", False),
        ("2001:db8::7", "2001:DB8::7", False),
        ("2001:db8::8", "2001:db8::7", True),
        ("192.0.2.0/24", "2001:db8::7", True),
        ("192.0.2.1:443", "192.0.2.1", False),
        ("192.0.2.1:8443", "192.0.2.1", True),
        ("[2001:db8::7]:443", "2001:db8::7", False),
        ("[2001:db8::7]:8443", "2001:db8::7", True),
        ("example.org", "example.org", False),
        ("example.org", "ntm.Example.ORG.", False),
        (".example.org", "ntm.example.org", False),
        ("*.example.org", "ntm.example.org", False),
        ("example.org", "notexample.org", True),
        ("ample.org", "example.org", True),
        ("example.org:8443", "example.org", True),
        ("., ,:,/,[,]", "example.org", True),
        ("192.0.2.0/99", "192.0.2.1", True),
    ],
)
def test_whom_it_serves(exempt: str, host: str, served: bool) -> None:
    proxy = parse_proxy("http://proxy.test:3128", exempt)
    assert proxy is not None
    assert proxy.serves(host, 443) is served
