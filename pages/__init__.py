"""Pages to look at and listen to: the report with its clips, and the repair of labels; one HTML file each."""
