"""From files on disk to batches of keypoints and slices: cases, phantom, store, splits, pairs."""
