"""What is accepted and how much is held at once; and the policy that every stored number depends on."""

from mmmos.errors import Rejected

MIN_SECONDS = 0.1
MAX_SECONDS = 24 * 3600.0
RATES = (1_000, 768_000)
CHANNELS = 32

# Samples over all channels: of a block, and of the beginning that decides how channels are mixed.
BLOCK = 1 << 20
BEGINNING = 1 << 20

# Part of every store key: a change here changes numbers.
POLICY = {
    "decoder": "libsndfile-1, else ffmpeg",
    "mono": "mean; the first channel where the mean is 40 dB below the channels in the first 2**20 samples",
    "audio": "2",
}


def check_rate(rate: float) -> None:
    """Raises ``Rejected`` (bad_rate) for a rate outside ``RATES``, in Hz."""
    if not RATES[0] <= rate <= RATES[1]:
        raise Rejected("bad_rate", f"{rate:g} Hz; allowed are {RATES[0]} to {RATES[1]} Hz")


def check_channels(channels: int) -> None:
    """Raises ``Rejected`` (bad_channels) for none, or more than ``CHANNELS``."""
    if not 1 <= channels <= CHANNELS:
        raise Rejected("bad_channels", f"{channels} channels; allowed are 1 to {CHANNELS}")
