"""TADFormer over a Swin: task prompts in attention windows, task streams that reuse shared factors."""
