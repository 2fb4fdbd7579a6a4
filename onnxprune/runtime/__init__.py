"""Running models in onnxruntime: sessions, feeds, calibration data, comparison, latency, activations."""
