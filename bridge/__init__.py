"""tams-bridge: job requests on a Kafka topic become TAMS jobs, and every change of a job an event."""
