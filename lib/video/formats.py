"""Formats by the names of FFmpeg's demuxers."""

# They open other files, addresses or scripts, or draw text as pictures. Builds of FFmpeg differ in those they have.
UNSAFE_FORMATS = {
    "adf", "applehttp", "avisynth", "bintext", "concat", "dash", "hls", "idf", "image2", "imf", "lavfi", "rtp", "rtsp",
    "sap", "sdp", "tty", "vapoursynth", "vobsub", "webm_dash_manifest", "xbin",
}  # fmt: skip
