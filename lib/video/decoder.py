"""Frames of a video file: exactly the ones asked for.

A clip's start depends on F, the number of frames that decode, and F has to follow from the file alone: if it depended
on what was believed at the time, a resumed run would differ. The container cannot be trusted with it: nothing in it
shows whether its packets decode, and one flipped bit in a sound file can cost a frame. So the first time, a video is
read to its end, wanting what the container's claim implies. If the claim was right (it mostly is) that was all; if
not, a second pass fetches the right frames. F is cached (video_facts.py), and later passes stop after the last wanted
frame, if the container still says what it said.

Seeking to a keyframe would decode less. But where a seek lands depends on timestamps, which are wrong in some files,
and what decodes from there can differ from what decodes from the start. Where a file's frames are known to stay the
same, packets that the wanted ones do not need are left out instead (packets.py).
"""

import os
from collections.abc import Callable
from dataclasses import replace

from video import packets
from video.bad_videos import BadVideo
from video.container import Container, complaints, refuse_text
from video.pixels import to_rgb
from video.playback import Playback
from video.skip_check import MAX_BYTES, find_order
from video.survey import Survey
from video.video import IndicesOf, Keep, Stopped, places_of
from video.video_facts import MAX_FRAMES, Fingerprint, VideoFacts, VideoFactsCache


class VideoFile:
    """A file that FFmpeg can read. Raises BadVideo if it may not be opened. See video.Video."""

    __slots__ = ("_upright", "fingerprint", "name")

    def __init__(self, path: str, status: os.stat_result, as_stored: bool):
        if not os.access(path, os.R_OK):
            raise BadVideo(path, "Permission denied")
        if not status.st_size:
            raise BadVideo(path, "is empty")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise BadVideo(path, "has a name that is not UTF-8") from None  # PyAV would not open it
        self.name = path
        self.fingerprint = Fingerprint(status.st_size, status.st_mtime_ns, as_stored)
        self._upright = not as_stored

    def sample(self, indices_of: IndicesOf, keep: Keep, cache: VideoFactsCache, stopped: Callable[[], bool],
               learn: bool) -> VideoFacts:
        """Decode the wanted frames; see sampling.sample_frames."""
        known = cache.get(self.name, self.fingerprint)
        if known and known.skips:
            try:
                self._read_needed(known, indices_of, keep, stopped)
                return known
            except (packets.CannotSkip, BadVideo):  # the content has changed behind an unchanged fingerprint
                known = None
        if known and not (learn and known.skips is None) and self._read(known, indices_of, keep, stopped):
            return known
        # The first time, or the content has changed.
        facts, claim_was_right = self._read_to_end(indices_of, keep, stopped, learn)
        cache.put(self.name, self.fingerprint, facts)
        if not claim_was_right and not self._read(facts, indices_of, keep, stopped):
            raise BadVideo(self.name, f"yielded {facts.count} frames at first, and another number afterwards")
        return facts

    def examine(self) -> VideoFacts:
        """Decode to the end. Raises BadVideo if no frame decodes."""
        return self._read_to_end(lambda count: (), lambda places, frame: None, lambda: False, learn=False)[0]

    def learn(self, examined: Callable[[VideoFacts], None]) -> VideoFacts:
        """See video.Video."""
        return self._read_to_end(lambda count: (), lambda places, frame: None, lambda: False, True, examined)[0]

    def play(self) -> Playback:
        """See video.Video."""
        refuse_text(self.name)
        return Playback(self._open(), self._upright)

    def _open(self, format_name=""):
        return Container(self.name, not self._upright, format_name)

    def _read_to_end(self, indices_of, keep, stopped, learn, examined=lambda facts: None):
        """Decode everything, keeping what the container's claim implies. Returns VideoFacts, and whether it was right.

        Raises BadVideo if no frame decodes.
        """
        refuse_text(self.name)
        with self._open() as video, complaints() as messages:
            claimed = min(video.claimed_frames, MAX_FRAMES)
            places = places_of(indices_of(claimed)) if claimed else {}
            survey = Survey(video, self._upright, checksums=learn)
            for index, frame in enumerate(video.frames()):
                if stopped():
                    raise Stopped
                if not survey.add(frame):
                    break
                if index in places:
                    keep(places[index], to_rgb(frame, survey.turn))
            facts = survey.facts()
        if not facts.count:
            raise BadVideo(self.name, "no frame decodes")
        if learn:
            examined(facts)
            # How FFmpeg conceals damage depends on everything decoded before.
            sound = not facts.damage and not messages and self.fingerprint.content <= MAX_BYTES
            order = find_order(self._open, survey.times, survey.checksums, stopped) if sound else None
            facts = replace(facts, skips=False) if order is None else replace(
                facts, skips=True, reorder=order[0], closed=order[1], format=video.format)
        return facts, claimed == facts.count

    def _read(self, known, indices_of, keep, stopped):
        """Decode up to the last wanted frame, or all. Returns whether the content is the known one, as far as seen."""
        places = places_of(indices_of(known.count))
        if not places:
            return True
        # Of a damaged video, or one whose container states no length, nothing but its end shows another number.
        whole = known.damage or known.length == 0
        end = known.count if whole else max(places) + 1
        with self._open() as video:
            if not _states(video, known):
                return False
            count = 0
            for frame in video.frames():
                if stopped():
                    raise Stopped
                if count == end:
                    return False
                if count in places:
                    keep(places[count], to_rgb(frame, known.turn))
                count += 1
                if count == (MAX_FRAMES if whole else end):
                    break
            return count == end and (whole or not video.failures)

    def _read_needed(self, known, indices_of, keep, stopped):
        """Decode only what the wanted frames need. Raises CannotSkip if that fails: what was kept does not count."""
        places = places_of(indices_of(known.count))
        with self._open(known.format) as video:
            if not _states(video, known):
                raise packets.CannotSkip
            listed = packets.read_wanted(video, places.keys(), known.reorder, known.closed)
            for rank, frame in packets.decode_needed(video, listed, places.keys()):
                if stopped():
                    raise Stopped
                keep(places[rank], to_rgb(frame, known.turn))


def _states(video, known):
    """Whether a container says of its length what it said when its video became known."""
    return known.length in (None, video.stated_length)
