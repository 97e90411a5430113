"""What a trained model knows: probes, the surprise test and the geometry of its latents."""
