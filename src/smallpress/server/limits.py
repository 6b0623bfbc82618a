"""What a client can ask for at most. Every number that comes from outside meets one of these."""

from pydantic import Field

from smallpress.run.settings import Settings


class Limits(Settings):
    """Sizes in bytes, times in seconds."""

    body_bytes: int = Field(default=2 << 20, ge=1024)
    body_depth: int = Field(default=64, ge=4)
    body_seconds: float = Field(default=15.0, gt=0)
    head_seconds: float = Field(default=10.0, gt=0)
    idle_seconds: int = Field(default=15, ge=1)
    stalled_seconds: float = Field(default=30.0, gt=0)
    choices: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=1 << 20, ge=1)
    connections: int = Field(default=4096, ge=1)
    live: int = Field(default=1024, ge=1)
    live_per_key: int = Field(default=1024, ge=1)


MAX_STOPS, MAX_STOP_CHARS = 4, 256
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_TEXTS, MAX_REGEX_CHARS = 1024, 4096
