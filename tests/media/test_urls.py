"""What is read of a URL, and which are refused by their text alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MediaError, MediaUnreachableError
from gateway.media import urls

LONGEST = ".".join(["a" * 63] * 3 + ["a" * 61])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("http://a.example", ("http://a.example/", "a.example", 80)),
        ("https://a.example:443/x?y=z#w", ("https://a.example/x?y=z", "a.example", 443)),
        ("HTTPS://A.Example.:8443/", ("https://a.example:8443/", "a.example", 8443)),
        (
            "http://b\u00fccher.example/\u00fc b",
            ("http://xn--bcher-kva.example/%C3%BC%20b", "xn--bcher-kva.example", 80),
        ),
        ("http://my_bucket.example/", ("http://my_bucket.example/", "my_bucket.example", 80)),
        ("http://[0:0::1]:81/", ("http://[::1]:81/", "::1", 81)),
        ("http://a.example/%0d%0a", ("http://a.example/%0d%0a", "a.example", 80)),
        (f"http://{LONGEST}./", (f"http://{LONGEST}/", LONGEST, 80)),
    ],
)
def test_a_url_has_one_reading(text: str, read: tuple[str, str, int]) -> None:
    url = urls.parse(text)
    assert (str(url), url.origin.host, url.origin.port) == read
    assert url.origin.https == text.lower().startswith("https")


@pytest.mark.parametrize(
    "text",
    [
        "http://a..example/",
        "http://.example/",
        "http://a.example../",
        "http://a,b.example/",
        "http://a%2eexample/",
        "http://a\\b/",
        "http://a b/",
        f"http://a{LONGEST}/",
        f"http://{'a' * 64}.example/",
        "http://[::1%25lo]/",
        "http://[::g]/",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example/\x7f",
        "http://\u2024example/",
    ],
)
def test_a_malformed_url_is_told_as_such(text: str) -> None:
    with pytest.raises(MediaError, match="the URL is malformed") as fault:
        urls.parse(text)
    assert fault.value.code == "invalid_media"


@pytest.mark.parametrize(
    "text", ["ftp://a.example/", "//a.example/", "a.example", "", "http:a", "http:///a", "https://"]
)
def test_only_http_and_https_with_a_host_are_fetched(text: str) -> None:
    with pytest.raises(MediaUnreachableError, match="only http and https"):
        urls.parse(text)


@pytest.mark.parametrize("text", ["http://user@a.example/", "http://user:password@a.example/", "http://:@a.example/"])
def test_credentials_are_refused(text: str) -> None:
    with pytest.raises(MediaUnreachableError, match="user name or password"):
        urls.parse(text)


def test_a_url_that_is_too_long_is_refused() -> None:
    assert len(str(urls.parse("http://a.example/" + "x" * 8000))) > 8000
    with pytest.raises(MediaUnreachableError, match="8192 characters"):
        urls.parse("http://a.example/" + "\u00fc" * 3000)


@pytest.mark.parametrize(
    ("location", "whereto"),
    [
        ("/c", "http://a.example:81/c"),
        ("c?d#e", "http://a.example:81/b/c?d"),
        ("../c", "http://a.example:81/c"),
        ("?d", "http://a.example:81/b/?d"),
        ("//b.example", "http://b.example/"),
        ("https://b.example/\u00fc", "https://b.example/%C3%BC"),
    ],
)
def test_a_redirect_is_read_from_where_it_stands(location: str, whereto: str) -> None:
    assert str(urls.parse("http://a.example:81/b/").join(location)) == whereto


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://b:c/", "/\x00", "http://user@b.example/", "ftp://b.example/"]
)
def test_a_redirect_that_cannot_be_followed_is_the_servers_fault(location: str) -> None:
    with pytest.raises(MediaUnreachableError):
        urls.parse("http://a.example/").join(location)


#: Text made of what URLs are made of, and of what should not be in them.
PIECES = st.lists(
    st.sampled_from(
        ["http:", "https:", "//", "/", "\\", "@", ":", "[", "]", "%", "%25", "#", "?", ".", "a", "0x7f", "::1"]
    )
    | st.text(max_size=3)
).map("".join)


@given(PIECES, PIECES)
def test_whatever_is_written_is_read_in_one_way_or_refused(text: str, location: str) -> None:
    for read in (urls.parse, urls.parse("http://a.example/b").join):
        try:
            url = read(text + location)
        except MediaError:
            continue
        assert urls.parse(str(url)) == url
        assert str(url).isascii()
        assert not {"\r", "\n", " ", "@", "\\"} & set(url.authority)
        assert not {"\r", "\n", " "} & set(url.target)
