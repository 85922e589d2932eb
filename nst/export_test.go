package nst

// StyleCacheMisses is how often an engine computed a style's targets.
func StyleCacheMisses(e *Engine) int { return e.styles.misses }
