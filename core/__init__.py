"""The vocabulary of ratemill: money, units, periods, time zones, schemas, errors, settings, clock. No I/O."""
