"""Jobs: worker threads with a fair queue, and event streams that report progress."""
