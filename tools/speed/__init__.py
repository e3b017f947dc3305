"""The speed figures of this repository, `make bench`. Not part of the installed package."""
