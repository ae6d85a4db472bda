"""Scripts that `export-caffe` lays beside a network; they run without this project."""
