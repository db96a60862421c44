"""What several probes share: scans of a data set, batches, classes, transforms of images, intervals."""
