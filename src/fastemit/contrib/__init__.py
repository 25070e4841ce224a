"""Modules that join fastemit to other packages. Each needs an extra. `fastemit` itself imports none of them."""
