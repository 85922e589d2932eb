package nst

// What the tests of package nst_test see of it.

// StyleCacheMisses is how often an engine computed a style's targets.
func StyleCacheMisses(e *Engine) int { return e.styles.misses }

var (
	TensorOf  = tensorOf
	PictureOf = pictureOf
)
