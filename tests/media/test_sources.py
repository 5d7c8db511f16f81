"""What the text of a media part points at."""

from __future__ import annotations

import pytest

from gateway.errors import MediaError
from gateway.media.sources import Embedded, LocalFile, Remote, Source, parse


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("data:image/png;base64,QQ==", Embedded("QQ==", "data:image/png;base64,QQ==")),
        ("data:;base64,QQ==", Embedded("QQ==", "data:;base64,QQ==")),
        ("data:image/png;charset=utf-8;base64,QQ==", Embedded("QQ==", "data:image/png;charset=utf-8;base64,QQ==")),
        ("DATA:image/png;base64,QQ==", Embedded("QQ==", "DATA:image/png;base64,QQ==")),
        ("data:image/png;BASE64,QQ==", Embedded("QQ==")),
        ("https://example.com/a.png", Remote("https://example.com/a.png")),
        ("HTTP://example.com", Remote("HTTP://example.com")),
        ("file:///srv/a%20b.png", LocalFile("/srv/a b.png")),
        ("file://localhost/srv/a.png", LocalFile("/srv/a.png")),
        ("a/b.png", LocalFile("a/b.png")),
        ("//example.com/a.png", LocalFile("//example.com/a.png")),
        (" http://example.com", LocalFile(" http://example.com")),
    ],
)
def test_a_source_is_read_by_its_scheme(text: str, source: Source) -> None:
    assert parse(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:base64,QQ==",
        "data:image/svg+xml;utf8,<svg/>",
        "file://server/share/a.png",
        "file://[/a",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_INFO",
        "jar:http://example.com!/a",
        "blob:https://example.com/1",
        "javascript:alert(1)",
        "unix:/var/run/docker.sock",
    ],
)
def test_every_other_form_is_refused(text: str) -> None:
    with pytest.raises(MediaError):
        parse(text)
