"""A model behind HTTP: the page of `infer.py explore`."""
