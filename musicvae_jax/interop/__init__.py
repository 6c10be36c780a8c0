"""Other programs' file formats: TensorFlow, safetensors, magenta.js and jax.export."""
