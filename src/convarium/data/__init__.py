"""Images in: data sets and their splits, decoding, preprocessing, augmentation."""
