"""`python -m pixelnet_tf` is the console command."""

from pixelnet_tf.cli import main

if __name__ == "__main__":
    main()
