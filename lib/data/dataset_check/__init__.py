"""What would go wrong in a run with these data.

    splits.py         Split: what to check, and against what
    records.py        Split -> Scan: its videos and classes; every record is checked
    videos.py         paths -> Fingerprints (one stat per path) -> VideoFacts (only new videos are decoded)
    ground_truth.py   FILENAME_GT against a test split
    clean_list.py     the records without a finding, as a list
    check.py          all of it, in order

Bad data raise nothing: what is found goes into a Findings, and the check continues.
"""
