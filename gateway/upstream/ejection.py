"""Leaves a replica out for a while after failures in a row, then lets one request at a time try it."""

from __future__ import annotations

from gateway.settings.engines import EjectionSettings


class Ejection:
    """What the requests of late say of one replica. Decides only: times are the caller's clock, in seconds.

    Closed: the replica gets requests. After `failures` in a row it is ejected until `until`. From then on it is half
    open: one trial at a time. A success closes it again; a failure ejects it for twice as long.
    """

    __slots__ = ("_failures", "_seconds", "_settings", "trial", "troubled", "until")

    def __init__(self, settings: EjectionSettings) -> None:
        self._settings = settings
        self._seconds = 0.0
        self._failures = 0
        #: When the time of the ejection is over; 0: it is not ejected.
        self.until = 0.0
        #: Whether the one trial is under way.
        self.trial = False
        #: Whether a success would change anything.
        self.troubled = False

    def __repr__(self) -> str:
        state = f"until {self.until:g} trial={self.trial}" if self.until else f"closed failures={self._failures}"
        return f"<Ejection {state}>"

    def admits(self, now: float) -> bool:
        """Whether the replica may get a request."""
        return now >= self.until and not self.trial

    def failed(self, now: float) -> bool:
        """Takes note of a failure; whether that ejects the replica. What began before an ejection tells nothing new."""
        if now < self.until:
            return False
        self._failures += 1
        self.troubled = True
        if not self.until and self._failures < self._settings.failures:
            return False
        longest = self._settings.max_seconds
        self._seconds = min(2 * self._seconds, longest) if self.until else min(self._settings.seconds, longest)
        self.until = now + self._seconds
        self.trial = False
        return True

    def succeeded(self, now: float) -> bool:
        """Takes note of a success; whether that ends an ejection.

        One before the time is over does not: that request may have begun before the ejection.
        """
        if now < self.until:
            return False
        restored = self.until > 0
        self._failures, self.until, self.trial, self.troubled = 0, 0.0, False, False
        return restored

    def begin_trial(self, now: float) -> bool:
        """Takes the trial if the replica is half open; whether it was."""
        if not self.until or now < self.until or self.trial:
            return False
        self.trial = True
        return True

    def end_trial(self) -> None:
        """Gives the trial back without a verdict: the client left, or the replica was only busy."""
        self.trial = False
