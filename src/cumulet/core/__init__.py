"""What services stand on. Knows neither HTTP nor any service."""
