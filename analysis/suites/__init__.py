"""The results of directories that hold several campaigns."""
