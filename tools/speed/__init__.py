"""The speed measurements of this repository, `make bench`. Not part of the installed package."""
