"""What every other package uses: messages, errors, progress, labels, text. Imports none of them."""
