"""The dataset's own teacher reads records again: do the stored labels say what it says, and if not, why?"""
