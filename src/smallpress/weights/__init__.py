"""Model references, GGUF and safetensors files, the one table of foreign names."""
