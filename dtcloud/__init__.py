"""DT's REST API: sign-in, history, Data Connectors."""
