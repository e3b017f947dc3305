"""The part that the vision-language-action policies share."""
