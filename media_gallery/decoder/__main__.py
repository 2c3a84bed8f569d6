"""The program that the parent starts."""

from media_gallery.decoder import main

main()
