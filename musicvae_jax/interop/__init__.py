"""Other programs' file formats: TensorFlow checkpoints and safetensors, read and written."""
