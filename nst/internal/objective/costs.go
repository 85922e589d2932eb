package objective

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed9bb5c928/nst/nst/vgg19"
)

// ErrDiverged is matched (errors.Is) by the error of costs that are no numbers.
var ErrDiverged = errors.New("the optimisation diverged")

// Costs are the values of the objective for one picture, before their weights, except
// the layers' λ_l in Content.
type Costs struct {
	Content    float64
	Style      map[vgg19.Layer]float64
	TV         float64
	Temporal   float64
	Total      float64
	GradientL2 float64
}

// Check returns an error that names the first term that is no number.
func (c Costs) Check(iteration int) error {
	bad := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	name := ""
	switch {
	case bad(c.Content):
		name = "the content cost"
	case bad(c.Total) || bad(c.GradientL2):
		name = "the gradient"
		if bad(c.TV) {
			name = "the total variation"
		}
		if bad(c.Temporal) {
			name = "the temporal cost"
		}
		for layer, v := range c.Style {
			if bad(v) {
				name = "the style cost of " + layer.Name
			}
		}
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: %s is not a finite number at iteration %d; a lower learning rate may help", ErrDiverged,
		name, iteration)
}
