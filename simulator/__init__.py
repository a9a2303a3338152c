"""The sender's side on one machine: sensors, signatures and a Data Connector like DT Cloud's."""
