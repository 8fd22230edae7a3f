"""How fast one connection's frames are read."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..limits.token_bucket import TokenBucket

FRAMES_PER_CHECKPOINT = 32  # many frames are read in one go, and no other task would run meanwhile


class FramePace:
    """Delays a flood of frames: unread, it fills the sender's own buffers and nobody else's."""

    __slots__ = ("_bucket", "_frames", "_held_back")

    def __init__(self, bucket: TokenBucket | None, held_back: Callable[[], object]) -> None:
        self._bucket = bucket
        self._held_back = held_back
        self._frames = 0

    async def keep(self) -> None:
        """To be called for each frame."""
        self._frames += 1
        if self._frames % FRAMES_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
        if self._bucket is not None and not self._bucket.take():
            self._held_back()
            await trio.sleep(self._bucket.seconds_until(1.0))
            self._bucket.take()
