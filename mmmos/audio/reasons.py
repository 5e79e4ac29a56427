"""Why a clip was not used: one code each, and a sentence in plain words."""

REASONS = {
    "missing": "the file is not there",
    "not_a_file": "the path is a folder, a pipe or a device",
    "unreadable": "the file system refuses to read it",
    "changed": "the file was written to while it was being read",
    "empty_file": "the file has 0 bytes",
    "not_audio": "the content is not audio",
    "needs_ffmpeg": "the content is audio of a kind that only the ffmpeg command decodes, and it is not installed",
    "decode_error": "the decoder gave up",
    "decoder_crashed": "the decoder's process ended before the clip did",
    "decode_timeout": "the decoder made no progress",
    "out_of_memory": "decoding took more memory than it is given",
    "no_samples": "the file or the segment holds no samples",
    "too_short": "less than 0.1 s of audio",
    "too_long": "more than 24 h of audio",
    "non_finite": "NaN or infinite samples",
    "bad_rate": "a sample rate outside 1 kHz to 768 kHz",
    "bad_channels": "no channels, or more than 32",
    "bad_codec": "a codec that is not decoded, since its decoder is rare and a risk: convert the file to flac",
    "bad_segment": "the segment lies outside the audio",
    "bad_embedding": "the encoder gave NaN, infinite, absurd or zero vectors",
    "encoder_failed": "the encoder could not process the clip",
    "worker_killed": "the process that encoded it was ended three times; --retry-rejected tries it again",
}

# What went wrong in processing: the clip has failed and is not rejected.
FAILED = frozenset({"changed", "decoder_crashed", "decode_timeout", "out_of_memory", "encoder_failed"})

# What says nothing about the audio and may not hold the next time: never stored, so that the next run tries again.
TRANSIENT = FAILED | {"missing", "not_a_file", "unreadable", "empty_file", "needs_ffmpeg"}
