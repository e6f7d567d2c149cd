"""Primitives: published vectors, errors, and the same results without the in-place calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntmd.proto import crypto
from ntmd.proto.crypto import Aead
from ntmd.proto.errors import ProtocolError
from ntmd.proto.types import Suite

suites = pytest.mark.parametrize("suite", list(Suite))


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def test_hkdf_rfc5869() -> None:
    """RFC 5869, appendix A, cases 1 to 3."""
    a = crypto.hkdf(h("0b" * 22), h("000102030405060708090a0b0c"), h("f0f1f2f3f4f5f6f7f8f9"), 42)
    assert a.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    b = crypto.hkdf(bytes(range(80)), bytes(range(0x60, 0xB0)), bytes(range(0xB0, 0x100)), 82)
    assert b.hex() == (
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e59"
        "0e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    )
    c = crypto.hkdf(h("0b" * 22), b"", b"", 42)
    assert c.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_x25519_rfc7748() -> None:
    """RFC 7748, section 6.1."""
    bob = h("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = h("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert crypto.public_key(bob).hex() == (
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    assert crypto.dh(bob, alice).hex() == (
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def test_ed25519_rfc8032() -> None:
    """RFC 8032, section 7.1, test 1."""
    private = h("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = crypto.ed25519_public(private)
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = crypto.ed25519_sign(private, b"")
    assert signature.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
        "b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert crypto.ed25519_verify(public, signature, b"")
    assert not crypto.ed25519_verify(public, signature, b"x")
    assert not crypto.ed25519_verify(public, signature[:-1], b"")
    assert not crypto.ed25519_verify(public[:-1], signature, b"")


def test_chacha_rfc8439() -> None:
    """RFC 8439, section 2.8.2."""
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for "
        b"the future, sunscreen would be it."
    )
    aead = Aead(Suite.CHACHA, bytes(range(0x80, 0xA0)))
    sealed = aead.seal(h("070000004041424344454647"), plaintext, h("50515253c0c1c2c3c4c5c6c7"))
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_aes_gcm_published() -> None:
    """The Galois/Counter Mode of Operation (McGrew, Viega), test cases 13 and 14."""
    aead = Aead(Suite.AES_GCM, bytes(32))
    assert aead.seal(bytes(12), b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert aead.seal(bytes(12), bytes(16)).hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_low_order_points_abort(point: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        crypto.dh(b"\x44" * 32, point)
    assert caught.value.kind == "zero_dh"


def hidden(aead: Aead) -> Aead:
    """The same key on a platform whose library has no in-place calls."""
    aead._into = aead._open_into = None
    return aead


@suites
@given(plaintext=st.binary(max_size=2100), nonce=st.binary(min_size=12, max_size=12))
def test_in_place_and_copied_give_the_same(suite: Suite, plaintext: bytes, nonce: bytes) -> None:
    key = b"\x07" * 32
    expected = Aead(suite, key).seal(nonce, plaintext)
    for aead in (Aead(suite, key), hidden(Aead(suite, key))):
        out = bytearray(len(expected))
        assert aead.seal_into(nonce, memoryview(plaintext), memoryview(out)) == len(expected)
        assert out == expected
        back = bytearray(len(plaintext))
        assert aead.open_into(nonce, memoryview(out), memoryview(back)) == len(plaintext)
        assert back == plaintext
        assert aead.open(nonce, memoryview(out)) == plaintext


@suites
def test_the_library_here_has_the_in_place_calls(suite: Suite) -> None:
    aead = Aead(suite, bytes(32))
    assert aead._into is not None
    assert aead._open_into is not None


@suites
@pytest.mark.parametrize("hide", [False, True])
def test_any_change_is_a_bad_tag(suite: Suite, hide: bool) -> None:
    aead = Aead(suite, bytes(32))
    sealed = aead.seal(bytes(12), b"twenty bytes of text")
    aead = hidden(aead) if hide else aead
    bent = [bytes((sealed[0] ^ 1,)) + sealed[1:], sealed[:-1], sealed[:15], b""]
    for data in bent:
        out = memoryview(bytearray(max(0, len(data) - 16)))
        with pytest.raises(ProtocolError, match="bad_tag"):
            aead.open(bytes(12), data)
        with pytest.raises(ProtocolError, match="bad_tag"):
            aead.open_into(bytes(12), data, out)
    with pytest.raises(ProtocolError, match="bad_tag"):
        aead.open(bytes(12), sealed, b"other")


def test_comparison() -> None:
    assert crypto.equal(b"same", b"same")
    assert not crypto.equal(b"same", b"samf")
