"""Tasks, one file each. Every module here is imported when a task is looked up, so none imports torch."""
