"""What operators need: notebooks run headless. Each module loads what it needs; importing the package loads nothing."""
