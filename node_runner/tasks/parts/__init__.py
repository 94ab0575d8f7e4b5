"""What tasks are made of: batches, segments of trajectories, what is minimised, exact laws."""
