"""Canvas: the tools that figures draw with: sheets, colours, fonts, maps of steps. Uses no figure."""
