"""How often an API key may call: counted in Redis for all processes together, and open when Redis is away."""

import logging
import math
import threading
import time
from dataclasses import dataclass

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rest_framework.exceptions import Throttled

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60
TIMEOUT_SECONDS = 0.05
PAUSE_SECONDS = 5.0
LOG_EVERY_SECONDS = 60.0

# Counts a request in the key's window, which begins with its first one; returns the count and the milliseconds left.
_COUNT = f"""
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    redis.call('PEXPIRE', KEYS[1], {WINDOW_SECONDS * 1000})
    left = {WINDOW_SECONDS * 1000}
end
return {{count, left}}
"""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key has left of its window: requests, and seconds until the window ends."""

    limit: int
    remaining: int
    seconds: int

    def headers(self) -> dict[str, str]:
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"key";q={self.limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"key";r={self.remaining};t={self.seconds}',
        }


class OverLimit(Throttled):
    """The key has used its window up; `allowance` says when the next one begins."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(
            wait=allowance.seconds,
            detail=f"At most {allowance.limit} requests a minute are taken with this key.",
        )
        self.allowance = allowance


class _Counter:
    """The connection to Redis, given up for a moment when it fails, so that an outage costs nobody time."""

    def __init__(self) -> None:
        self.redis: Redis | None = None
        self.url = ""
        self.lock = threading.Lock()
        self.closed_until = self.log_again = float("-inf")

    def count(self, key: str) -> tuple[int, float] | None:
        """Count one request; returns how many there are and the seconds left, None if Redis is away."""
        if time.monotonic() < self.closed_until:
            return None
        try:
            count, left = self._connection().eval(_COUNT, 1, key)
        except (RedisError, OSError, ValueError) as error:
            self._give_up(error)
            return None
        return int(count), int(left) / 1000

    def _connection(self) -> Redis:
        with self.lock:
            if self.redis is None or self.url != settings.REDIS_URL:
                self.redis = Redis.from_url(
                    settings.REDIS_URL,
                    socket_timeout=TIMEOUT_SECONDS,
                    socket_connect_timeout=TIMEOUT_SECONDS,
                    retry=Retry(NoBackoff(), 0),
                )
                self.url = settings.REDIS_URL
            return self.redis

    def _give_up(self, error: Exception) -> None:
        moment = time.monotonic()
        self.closed_until = moment + PAUSE_SECONDS
        if moment >= self.log_again:
            self.log_again = moment + LOG_EVERY_SECONDS
            log.warning("Redis is away, requests are not limited: %s", type(error).__name__)


_counter = _Counter()


def take_request(api_key_id: int) -> Allowance | None:
    """Count a request of a key and return what it has left; None while there is no limit.

    The limit is the setting RATE_LIMIT_PER_MINUTE. Raises OverLimit.
    """
    limit = settings.RATE_LIMIT_PER_MINUTE
    if limit <= 0:
        return None
    counted = _counter.count(f"tallybook:requests:{api_key_id}")
    if counted is None:
        return None
    count, seconds = counted
    allowance = Allowance(limit, max(0, limit - count), max(1, math.ceil(seconds)))
    if count > limit:
        raise OverLimit(allowance)
    return allowance
