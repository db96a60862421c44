"""Canvas: the tools that figures draw with: sheets, colours, fonts, maps of steps. Knows no figure."""
