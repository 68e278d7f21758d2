"""Models that come with aumcli."""
