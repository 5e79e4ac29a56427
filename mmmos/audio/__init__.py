"""Audio: any file is decoded to mono and measured, or refused with one reason. The only package that touches audio.

Conventions: samples are float32, full scale is 1; a signal is ``(samples,)``; rates are in Hz, times in s. A file that
cannot be used raises ``Rejected`` with a code of ``REASONS``. ``stream`` and ``read`` decode in this process;
``isolated.stream`` gives the same bits from a process with limits, which damaged or hostile files may crash.

Mono is the mean over channels; where the channels cancel each other (the mean of the first 2**20 samples over all
channels lies more than 40 dB below the channels), it is the first channel. Decoders and this rule are in ``POLICY``,
which is part of every store key.
"""

from mmmos.audio import isolated
from mmmos.audio.containers import extension_mismatch
from mmmos.audio.downmix import mono
from mmmos.audio.flags import FLAGS, flags
from mmmos.audio.header import CONTAINERS
from mmmos.audio.limits import MAX_SECONDS, MIN_SECONDS, POLICY, RATES
from mmmos.audio.measures import MEASURES
from mmmos.audio.opening import checked, content_hash, stamp
from mmmos.audio.reasons import FAILED, REASONS, TRANSIENT
from mmmos.audio.segment import Samples
from mmmos.audio.streaming import Stream, read, stream
from mmmos.audio.windows import Windows, pad

__all__ = [
    "CONTAINERS",
    "FAILED",
    "FLAGS",
    "MAX_SECONDS",
    "MEASURES",
    "MIN_SECONDS",
    "POLICY",
    "RATES",
    "REASONS",
    "TRANSIENT",
    "Samples",
    "Stream",
    "Windows",
    "checked",
    "content_hash",
    "extension_mismatch",
    "flags",
    "isolated",
    "mono",
    "pad",
    "read",
    "stamp",
    "stream",
]
