"""The hot loops, one file a codec; see ``featherweight.kernel`` for what a kernel may do."""
