"""Jobs: worker threads, their queue, and subscribers to progress."""
