"""Stands for KServe's storage initializer where it runs a program of ours: downloads are small files, at once."""
