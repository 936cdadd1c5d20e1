"""What an audit does, one function a stage; `audit.pipeline` calls them in order."""
