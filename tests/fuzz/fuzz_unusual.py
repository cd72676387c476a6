"""Sound videos of unusual kinds, whole and damaged; those that are whole are judged by the ffmpeg program as well."""

from dataclasses import dataclass

from ffmpeg_frames import FFMPEG, ffmpeg_frames
from fuzz_videos import Case, Videos
from fuzzing import Wrong, mutate_bytes
from unusual_parts import RAW, Unusual
from unusual_videos import make_unusual


@dataclass
class UnusualCase(Case):
    made: Unusual | None  # None: damaged


class UnusualVideos(Videos):
    name = "unusual"

    def make(self, rng):
        self._clear()
        made = make_unusual(rng, self.folder)
        # What is damaged in FFV1 decodes to what happens to be in memory, without an error.
        damaged = rng.random() < 0.5 and "ffv1" not in made.kind
        if damaged:
            made.path.write_bytes(mutate_bytes(rng, made.path.read_bytes()))
        known, as_stored = rng.random() < 0.5, rng.random() < 0.5
        return UnusualCase(str(made.path), made.path.stat().st_size + 1, f"{made.kind}{' damaged' * damaged}"
                           f"{' as stored' * as_stored}", known, as_stored, None if damaged else made)  # fmt: skip

    def check(self, case, result):
        super().check(case, result)
        if case.made:
            self._check_facts(case, result[2])
            # ffmpeg turns each frame by its own message, and here all are turned as the first one.
            if FFMPEG and (case.made.rotation or case.as_stored):
                self._check_frames(case, result[0][0])

    def _check_facts(self, case, facts):
        made = case.made
        if made.frames == []:
            raise Wrong("is taken for a video")
        if made.frames is None or case.as_stored and made.stream:
            return  # what is true of it is not known
        if facts.damage:
            raise Wrong(f"is called damaged: {facts.damage}")
        sizes, formats = ({what(frame) for frame in made.frames} for what in (lambda f: f[:2], lambda f: f[2]))
        true = {"size": len(sizes) > 1, "format": len(formats) > 1,
                "rotation": bool(made.rotation and any(made.rotation)) and not case.as_stored}  # fmt: skip
        for kind in true:
            if made.rotation and true[kind] != (kind in facts.remarks):
                raise Wrong(f"the remarks are {facts.remarks}; expected {kind}: {true[kind]}")

    def _check_frames(self, case, digests):
        expected = ffmpeg_frames(case.path, case.as_stored)
        if len(digests) != len(expected):
            raise Wrong(f"{len(digests)} frames where ffmpeg has {len(expected)}")
        for index, (found, frame) in enumerate(zip(digests, expected, strict=True)):
            if frame.rgb not in (None, found):
                raise Wrong(f"frame {index} differs from ffmpeg's")

    def check_refusal(self, case, error):
        super().check_refusal(case, error)
        if case.made and case.made.frames != [] and not _is_mistaken(case.made.path):
            raise Wrong(f"is refused: {error.reason}")


def _is_mistaken(path):
    """Whether ffmpeg takes a stream without a container, whose format it has to guess, for one of another format."""
    return FFMPEG and path.suffix in RAW and not ffmpeg_frames(path)
