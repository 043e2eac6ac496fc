"""Surface-defect detection: classify images of parts, and say which are defective."""
