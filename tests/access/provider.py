"""A real OpenID provider on loopback, which says and signs what a test wants."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.settings import JwtSettings

AUDIENCE = "gemma"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that is made once for all tests, since that takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str, curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    """As `rsa_key`."""
    return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[curve])


def jwk(key: PrivateKey, kid: str | None = None, **more: object) -> dict[str, Any]:
    """The public key as providers publish it."""
    public = key.public_key()
    published: dict[str, Any]
    if isinstance(public, rsa.RSAPublicKey):
        published = json.loads(RSAAlgorithm.to_jwk(public))
    elif isinstance(public, ec.EllipticCurvePublicKey):
        published = json.loads(ECAlgorithm.to_jwk(public))
    else:
        published = json.loads(OKPAlgorithm.to_jwk(public))
    published.pop("key_ops", None)
    return published | ({} if kid is None else {"kid": kid}) | more


def certify(path: Path) -> Path:
    """Writes a certificate for 127.0.0.1 that vouches for itself, with its key."""
    key, name = ec_key("tls"), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider of tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return path


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses the certificate is no fault of the server."""


@dataclass
class Provider:
    """Answers for as long as it is entered; `down` makes it answer 500, `answers` puts other documents in their place.

    `asked` has the paths that were asked for, in their order. With a `certificate` (from `certify`) it speaks TLS.
    """

    keys: Sequence[Mapping[str, Any]] = ()
    down: bool = False
    delay: float = 0.0
    answers: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    certificate: Path | None = None
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self._handler())
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def issuer(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self._server.server_port}"

    def settings(self, **more: Any) -> JwtSettings:
        """What the gateway is told of it."""
        return JwtSettings(**{"issuer": self.issuer, "audience": (AUDIENCE,)} | more)

    def token(
        self, key: PrivateKey, kid: str | None = "one", algorithm: str = "RS256", seconds: float = 300, **claims: Any
    ) -> str:
        """A token that is valid for so long, apart from what `claims` say; None leaves a claim out."""
        now = int(time.time())
        content = {"iss": self.issuer, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": int(now + seconds)} | claims
        content = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(content, key, algorithm, headers=None if kid is None else {"kid": kid})

    def _document(self, path: str) -> bytes | None:
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}).encode()
        return json.dumps({"keys": list(self.keys)}).encode() if path == "/keys" else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                time.sleep(provider.delay)
                document = provider._document(self.path)
                status = 500 if provider.down else 302 if self.path in provider.redirects else 200 if document else 404
                with contextlib.suppress(ConnectionError):  # A client may have had enough.
                    self._send(status, document or b"")

            def _send(self, status: int, document: bytes) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("location", provider.redirects[self.path])
                body = document if status == 200 else b""
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class says so
                pass

        return Handler
