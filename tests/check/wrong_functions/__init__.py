"""Functions as learners write them: forty wrong ones, one per mistake and operation, and twenty right ones."""
