"""TADFormer: prompts of tasks, and filters between the two factors of a shared LoRA."""
