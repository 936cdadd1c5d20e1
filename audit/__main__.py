"""`python -m audit` is the same command as `gradcam-audit`."""

from audit.cli import main

if __name__ == "__main__":
    main()
