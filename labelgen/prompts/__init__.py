"""Any prompt set becomes a snapshot of prompts on disk, and prompts become token ids."""
