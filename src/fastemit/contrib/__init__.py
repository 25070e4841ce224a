"""What joins fastemit to other packages. Each module needs an extra; nothing here is imported by `fastemit` itself."""
