"""Photographs, patches of them, and what is learnt from patches."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".imc")
"""Ends of the names of files that count as pictures."""
HATEREN = (1024, 1536)
"""Rows and columns of an .imc file (van Hateren's set): 16 bits a pixel, the high byte first."""
