"""Training: Caffe's solver, the loop, checkpoints, logs."""
