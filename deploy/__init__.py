"""Helpers of `deploy.sh`: the smoke test and the Data Connector."""
