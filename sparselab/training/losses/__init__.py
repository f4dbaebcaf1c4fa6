"""Extra losses, beside the task's own."""
