"""Export to SavedModel, the server, the client."""
