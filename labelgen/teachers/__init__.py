"""What can label: vLLM, Transformers as the slow exact reference, and a fake for tests."""
