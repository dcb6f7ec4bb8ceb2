"""The version of the package, for every room to say."""

VERSION = "0.1.0"
