"""One file per kind of dataset. Every module here is imported when a dataset is looked up, so none imports torch."""
