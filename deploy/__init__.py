"""Helpers of `deploy.sh`: the smoke test, the Data Connector, the DT organization, and its files of data."""
