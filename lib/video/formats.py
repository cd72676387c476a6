"""Formats by the endings of files, and by the names of FFmpeg's demuxers."""

# What is taken for a video by its name. A file named by itself may have any ending.
VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
                  ".ts", ".vob", ".webm", ".wmv")

# They open other files, addresses or scripts, or draw text as pictures. Builds of FFmpeg differ in those they have.
UNSAFE_FORMATS = {
    "adf", "applehttp", "avisynth", "bintext", "concat", "dash", "hls", "idf", "image2", "imf", "lavfi", "rtp", "rtsp",
    "sap", "sdp", "tty", "vapoursynth", "vobsub", "webm_dash_manifest", "xbin",
}  # fmt: skip
