"""What runs under everything: files that are written whole, work in processes, seeds, progress bars."""
