"""The sender: simulated sensors, their signatures, and a Data Connector like DT Cloud's."""
