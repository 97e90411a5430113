# liblewm itself; what a controller links.
