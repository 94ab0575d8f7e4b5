"""What `trainer` can add to the training of a task: each wraps a task, and is one."""
