"""Flows → cells → usage by service, hour, tariff zone, class and direction."""
