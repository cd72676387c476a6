"""What the loaders share: decoding threads, and how they end.

Order and draws do not depend on the threads. Clips travel as uint8; transforms.normalize makes them float32 next to
the model.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch

from data.buffer_pool import BufferPool
from utils.errors import Hang
from video.bad_videos import BadVideos
from video.sampling import open_video, sample_frames
from video.survey import WORTH_SAYING
from video.video import IndicesOf, Keep
from video.video_facts import VideoFactsCache
from video.watchdog import Watchdog


class Loader:
    """The threads of a loader, and how they end.

    Threads rather than processes: PyAV and OpenCV release the interpreter's lock while they work, and the results need
    no copy.

    Args:
        workers: number of decoding threads.
        bad_videos: where bad and damaged videos are noted.
        facts: cache to share with other loaders; None: a new one.
        pin_memory: whether batches lie in page-locked memory, for asynchronous copies to a GPU.
        hang_seconds: how long a video may yield no frame before next() raises Hang; 0: forever.
        as_stored: see sampling.open_video.
        learn: see sampling.sample_frames; for loaders that come back to their videos.
    """

    def __init__(
        self,
        workers: int,
        bad_videos: BadVideos,
        facts: VideoFactsCache | None,
        pin_memory: bool,
        hang_seconds: float,
        as_stored: bool = False,
        learn: bool = False,
    ):
        self._watchdog = Watchdog(hang_seconds)
        self._bad_videos = bad_videos
        self._facts = VideoFactsCache() if facts is None else facts
        self._pin_memory = pin_memory
        self._as_stored = as_stored
        self._learn = learn
        self._batch_memory = BufferPool()
        self._closed = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decoder")

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; each finishes the frame it is decoding. The first call raises Hang if one does not."""
        if self._closed:
            return
        self._stop()
        self._watchdog.wait_until_idle()
        self._pool.shutdown(wait=True)

    def _stop(self):
        """Start nothing more; the threads end when they finish their current frame, if ever."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, task: Future) -> Any:
        """The result of a task; closes the loader if the task raises."""
        try:
            return self._watchdog.result(task)
        except Hang:
            self._stop()
            raise
        except Exception:
            self.close()
            raise

    def _sample(self, path: str, indices_of: IndicesOf, keep: Keep) -> int:
        """sample_frames of the video at a path, noting what is damaged or unusual. Returns F, its number of frames.

        Raises BadVideo, and Stopped if the loader is closed.
        """
        with self._watchdog.video(path) as frame_done:

            def stopped():
                frame_done()
                return self._closed

            video = open_video(path, self._as_stored)
            facts = sample_frames(video, indices_of, keep, self._facts, stopped, self._learn)
        if facts.damage:
            self._bad_videos.add_damaged(path, facts.damage)
        for kind in facts.remarks.keys() & WORTH_SAYING:
            self._bad_videos.add_remark(path, kind, facts.remarks[kind])
        return facts.count

    def _new_clips(self, number: int, length: int, height: int, width: int) -> torch.Tensor:
        """An uninitialised tensor number x length x height x width x 3, uint8."""
        shape = number, length, height, width, 3
        if self._pin_memory:
            # PyTorch itself reuses page-locked memory once the copies from it are done.
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._batch_memory.tensor(shape)
