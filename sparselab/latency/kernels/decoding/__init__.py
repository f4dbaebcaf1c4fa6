"""One token through a transformer in native code: dense matrices, skipped inputs, coded weights; and the plain way."""
