package nst

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
)

// What comments and pages say of defaults is what they are.
func TestDocumentedDefaults(t *testing.T) {
	read := func(path string) string {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Join(strings.Fields(strings.ReplaceAll(string(data), "//", "")), " ")
	}
	options, page, commands := read("options.go"), read("README.md"), read("../cmd/nst/README.md")
	layers := func(all []LayerWeight) (names []string) {
		for _, l := range all {
			names = append(names, l.Layer)
		}
		return names
	}
	of := map[Preset]*settings{}
	for _, p := range []Preset{Balanced, Classic, Gatys} {
		s, err := Options{Preset: p}.withDefaults()
		require.NoError(t, err)
		of[p] = s
	}
	adam := func(p Preset) *settings {
		s, err := Options{Preset: p, Optimizer: Adam}.withDefaults()
		require.NoError(t, err)
		return s
	}
	classic, balanced := of[Classic], of[Balanced]
	assert.Equal(t, 2.0/255, classic.descent.Rate)
	gatys := of[Gatys]
	says := func(page string, format string, values ...any) {
		assert.Contains(t, page, fmt.Sprintf(format, values...))
	}
	says(options, "it remembers %d steps", descent.History)
	says(page, "It remembers %d steps", descent.History)
	says(options, "α %g, β %g, Adam at 2/255", classic.spec.Alpha, classic.spec.Beta)
	says(page, "α %g, β %g, L-BFGS", balanced.spec.Alpha, balanced.spec.Beta)
	says(options, "β₂ %g (in Balanced %g)", classic.descent.Beta2, balanced.descent.Beta2)
	says(options, "%s, and %s.", layers(classic.ContentLayers)[0], strings.Join(layers(classic.StyleLayers), ", "))
	says(commands, "longest side of the result; 0 keeps the content picture's own size | %d |", DefaultSize)
	says(commands, "| α, β | %g, %g | %g, %g | %g, %g |", balanced.spec.Alpha, balanced.spec.Beta,
		classic.spec.Alpha, classic.spec.Beta, gatys.spec.Alpha, gatys.spec.Beta)
	says(commands, "| style layers | %s | and relu5_1 | and relu5_1 |",
		strings.Join(layers(balanced.StyleLayers), ", "))
	says(commands, "| style margin | %g | %g | %g |", *balanced.StyleMargin, *classic.StyleMargin, *gatys.StyleMargin)
	says(commands, "| optimizer | %s | %s | %s |", balanced.Optimizer, classic.Optimizer, gatys.Optimizer)
	says(commands, "| Adam's rate, β₂ | %g, %g | 2/255, %g | %g, %g |", adam(Balanced).descent.Rate,
		balanced.descent.Beta2, classic.descent.Beta2, adam(Gatys).descent.Rate, gatys.descent.Beta2)
	says(commands, "| iterations | %d | %d | %d |", balanced.iterations, classic.iterations, gatys.iterations)
	says(commands, "| scales | %s | %s | %s |", balanced.Scales, classic.Scales, gatys.Scales)
	assert.Regexp(t, regexp.MustCompile(`Scales is ScalesAuto for Balanced and ScalesOff else`), options)
}
