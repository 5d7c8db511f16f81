"""Who a request comes from: by its key, by its token, or anybody where the gateway is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.access.brake import Brake
from gateway.access.callers import ANONYMOUS, Caller
from gateway.access.jwt import Tokens
from gateway.access.keys import PREFIX, KeyStore, mask
from gateway.access.source import Network, address, counted_by
from gateway.errors import AuthenticationError, ConfigurationError
from gateway.settings import AuthSettings, is_loopback

#: Tells, once it is needed, the peer of a connection and its X-Forwarded-For headers in their order.
Source = Callable[[], tuple[str | None, Sequence[bytes]]]


_BEARER = (b"Bearer ", b"bearer ")


class Access:
    """Decides who a request comes from. Without keys and tokens the gateway is open: any key, or none, will do."""

    def __init__(
        self, store: KeyStore | None, tokens: Tokens | None, brake: Brake, trusted_proxies: Sequence[Network] = ()
    ) -> None:
        self.tokens = tokens
        self.brake = brake
        self._store = store
        self._trusted_proxies = trusted_proxies

    @classmethod
    def from_settings(
        cls,
        auth: AuthSettings,
        host: str,
        store: KeyStore | None,
        tokens: Tokens | None,
    ) -> Access:
        """Applies the policy for the listening address `host`, with what `auth` says made into keys and tokens.

        Raises ConfigurationError where an address that others can reach would be open to everyone.
        """
        if store is not None or tokens is not None or is_loopback(host):
            return cls(store, tokens, Brake(auth.max_failures_per_minute), auth.trusted_proxies)
        raise ConfigurationError(
            f"listening on {host} without API keys would let anyone in who can reach it. Make a key:\n"
            "  gemma-gateway keys create --file keys.yaml --name me\n"
            "and start with:  --keys-file keys.yaml\n"
            "or take the tokens of an OpenID provider, in the configuration file:\n"
            "  auth: {jwt: {company: {issuer: 'https://id.example.com', audience: [gemma]}}}\n"
            "or listen on this machine only:  --host 127.0.0.1"
        )

    @property
    def open(self) -> bool:
        """Whether requests pass without a key."""
        return self._store is None and self.tokens is None

    def replace_keys(self, store: KeyStore) -> None:
        """From the next request on, these are the keys."""
        self._store = store

    def by_key(self, authorization: bytes | None, api_key: bytes | None) -> Caller | None:
        """The caller where a key tells it, or where the gateway is open; None: `authenticate` knows more."""
        store = self._store
        if store is None:
            return ANONYMOUS if self.tokens is None else None
        if authorization is not None and authorization[:7] in _BEARER:
            return store.find(authorization[7:].decode("latin-1"))
        return None if api_key is None or authorization is not None else store.find(api_key.decode("latin-1"))

    async def authenticate(self, authorization: bytes | None, api_key: bytes | None, source: Source) -> Caller:
        """The caller of a request with these `authorization` and `x-api-key` header values.

        Raises AuthenticationError; TooManyFailuresError, after a while, where many came from the same address;
        PermissionDeniedError for a good token that no grant is meant for; ProviderUnavailableError.
        """
        store = self._store
        if store is None and self.tokens is None:
            return ANONYMOUS
        presented = _presented(authorization, api_key)
        try:
            if store is not None and presented.startswith(PREFIX):
                return store.authenticate(presented)
            return await self._by_token(presented)
        except AuthenticationError as error:
            raise await self._refusal(error, source) from None

    async def run(self) -> None:
        """Does what works in the background, until cancelled; returns at once where that is nothing."""
        if self.tokens is not None:
            await self.tokens.run()

    async def aclose(self) -> None:
        """Lets go of connections."""
        if self.tokens is not None:
            await self.tokens.aclose()

    async def _by_token(self, presented: str) -> Caller:
        if self.tokens is not None and presented.count(".") == 2 and not presented.startswith(PREFIX):
            return await self.tokens.authenticate(presented)
        raise AuthenticationError(
            f"Incorrect API key provided: {mask(presented)}. Ask whoever runs this gateway for a valid key."
        )

    async def _refusal(self, error: AuthenticationError, source: Source) -> Exception:
        peer, forwarded = source()
        return await self.brake.answer(counted_by(address(peer, forwarded, self._trusted_proxies)), error)


def _presented(authorization: bytes | None, api_key: bytes | None) -> str:
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        key = authorization[7:].strip()
    else:
        key = (api_key or b"").strip()
    if not key:
        raise AuthenticationError(
            "No API key was provided. Send it in the Authorization header (Authorization: Bearer KEY) "
            "or in the x-api-key header."
        )
    return key.decode("latin-1")
