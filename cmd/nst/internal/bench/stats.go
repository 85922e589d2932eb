package bench

import "slices"

// Series is one thing timed again and again.
type Series struct {
	// Seconds are those of each repetition, in their order.
	Seconds []float64 `json:"seconds"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Lower   float64   `json:"lower_quartile"`
	Upper   float64   `json:"upper_quartile"`
	// Spread is the distance of the quartiles over the median.
	Spread float64 `json:"spread"`
}

// SeriesOf describes repetitions, of which there is at least one.
func SeriesOf(seconds []float64) Series {
	sorted := slices.Sorted(slices.Values(seconds))
	at := func(p float64) float64 { return quantile(p, sorted) }
	s := Series{Seconds: seconds, Median: at(0.5), Min: sorted[0], Lower: at(0.25), Upper: at(0.75)}
	s.Spread = (s.Upper - s.Lower) / s.Median
	return s
}

// quantile interpolates between the repetitions beside it, of which the first is at 0 and
// the last at 1 (definition 7 of Hyndman and Fan, 1996), as spreadsheets and NumPy do.
func quantile(p float64, sorted []float64) float64 {
	at := p * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// median is that of any values, of which there is at least one.
func median(values []float64) float64 { return quantile(0.5, slices.Sorted(slices.Values(values))) }
