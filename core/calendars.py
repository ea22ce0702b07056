"""Tariff calendars: which zone of the day (peak, night, weekend …) an instant belongs to."""
