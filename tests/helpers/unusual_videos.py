"""Sound videos of unusual kinds, and files under a video's name that are none, made by PyAV's encoders and muxers."""

import unusual_codings
import unusual_containers
import unusual_refused

# {name: make(rng, folder)}; each writes a small file that follows from a random.Random and returns an Unusual.
KINDS = unusual_containers.KINDS | unusual_codings.KINDS | unusual_refused.KINDS


def make_unusual(rng, folder):
    """Write a video of a kind that the random.Random chooses; returns an Unusual."""
    return KINDS[rng.choice(list(KINDS))](rng, folder)
