"""Which proxy, and for whom there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.runtime.proxy import Proxy, parse_proxy


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


SUPERSCRIPT, ARABIC = "\u00b2", "\u0664\u0664\u0663"  # digits, but no number here
ODD = [f"host:{SUPERSCRIPT}", f"host:{ARABIC}", "host:" + "9" * 5000, f"[::1]:{SUPERSCRIPT}"]
ODD += ["[", "]:1", ":", "::", "*.", ".", "10.0.0.0/99", "host:"]


@pytest.mark.parametrize("word", ODD)
def test_an_odd_list_of_exempt_hosts_covers_nobody(word: str) -> None:
    proxy = Proxy("proxy.test", 8080, exempt=word)
    assert proxy.serves("host", 443)
    assert proxy.serves("::1", 443)


@given(st.text(max_size=40), st.sampled_from(["host.test", "10.0.0.1", "::1"]))
def test_no_list_of_exempt_hosts_raises(exempt: str, host: str) -> None:
    Proxy("proxy.test", 8080, exempt=exempt).serves(host, 443)
