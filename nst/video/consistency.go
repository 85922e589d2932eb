package video

import (
	"math"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Where the flow can be relied on: the constants of Sundaram, Brox and Keutzer 2010 ("Dense
// Point Trajectories"), which Ruder et al. take over, but for edgeBase. Theirs, 0.002, is for a
// smoother flow: ours is in patches where there is no texture, with harmless steps between.
const (
	disoccludedShare, disoccludedBase = 0.01, 0.5
	edgeShare, edgeBase               = 0.01, 0.1
)

// reliable says for each pixel of a frame, by 1 or 0, whether it was to be seen in an earlier
// one, by the flow back to that and the flow forth from it (equations 4 and 5 of Ruder et al.):
// not where going back and forth ends elsewhere, not at the edges of motion, and not where the
// flow leaves the picture.
func reliable(back, forth []float32, width, height int) []float32 {
	plane := width * height
	returned := torch.Warp(forth, back, height, width)
	u, v := back[:plane], back[plane:]
	out := make([]float32, plane)
	for y := range height {
		for x := range width {
			i := y*width + x
			toX, toY := float32(x)+u[i], float32(y)+v[i]
			if !(toX >= 0 && toY >= 0 && toX <= float32(width-1) && toY <= float32(height-1)) {
				continue
			}
			ru, rv := returned[i], returned[plane+i]
			length := u[i]*u[i] + v[i]*v[i]
			miss := (u[i]+ru)*(u[i]+ru) + (v[i]+rv)*(v[i]+rv)
			if !(miss <= disoccludedShare*(length+ru*ru+rv*rv)+disoccludedBase) {
				continue
			}
			right, below := i, i
			if x+1 < width {
				right++
			}
			if y+1 < height {
				below += width
			}
			slope := float32(0)
			for _, of := range [][]float32{u, v} {
				dx, dy := of[right]-of[i], of[below]-of[i]
				slope += dx*dx + dy*dy
			}
			if !(slope <= edgeShare*length+edgeBase) {
				continue
			}
			out[i] = 1
		}
	}
	return out
}

// softened lowers weights where those around are low: along a line of zeros, as where two motions
// meet, they rise to 1 over three pixels; where a third and more of what is around is not known,
// they are 0.
func softened(weights []float32, width, height int) []float32 {
	out := smooth(weights, width, height)
	for i, around := range out {
		out[i] = weights[i] * max(0, 1-3*(1-around))
	}
	return out
}

// smoothed is a picture without its steps.
func smoothed(p *picture.Picture) *picture.Picture {
	out := &picture.Picture{Width: p.Width, Height: p.Height}
	plane := p.Width * p.Height
	for k := range 3 {
		out.Pixels = append(out.Pixels, smooth(p.Pixels[k*plane:(k+1)*plane], p.Width, p.Height)...)
	}
	return out
}

// smooth is the mean of the 3×3 values around each, taken twice; the outermost values go on
// beyond the edges.
func smooth(values []float32, width, height int) []float32 {
	for range 2 {
		across, sums := make([]float32, len(values)), make([]float32, len(values))
		for i, v := range values {
			x := i % width
			across[i] = values[i-min(x, 1)] + v + values[i+min(width-1-x, 1)]
		}
		for i, v := range across {
			y := i / width
			sums[i] = (across[i-width*min(y, 1)] + v + across[i+width*min(height-1-y, 1)]) / 9
		}
		values = sums
	}
	return values
}

// warped is an earlier frame's picture, moved along the flow back to it.
func warped(p *picture.Picture, back []float32) *picture.Picture {
	out := &picture.Picture{Width: p.Width, Height: p.Height, Pixels: torch.Warp(p.Pixels, back, p.Height, p.Width)}
	clamp(out.Pixels)
	return out
}

// clamp limits values to [0,1], beyond which a cubic kernel overshoots at edges.
func clamp(values []float32) {
	for i, v := range values {
		values[i] = min(max(v, 0), 1)
	}
}

// blended puts a picture where it is known, by its weights, over another.
func blended(p, other *picture.Picture, weights []float32) *picture.Picture {
	out := picture.New(p.Width, p.Height)
	plane := len(weights)
	for i := range out.Pixels {
		w := weights[i%plane]
		out.Pixels[i] = w*p.Pixels[i] + (1-w)*other.Pixels[i]
	}
	return out
}

// mean is of weights.
func mean(values []float32) float64 {
	sum := 0.0
	for _, v := range values {
		sum += float64(v)
	}
	return sum / float64(max(1, len(values)))
}

// histogramBins are those of each channel.
const histogramBins = 32

// histogram is how a picture's values are distributed, channel by channel: shares of all.
func histogram(p *picture.Picture) []float64 {
	out := make([]float64, 3*histogramBins)
	plane := p.Width * p.Height
	for i, v := range p.Pixels {
		bin := min(histogramBins-1, max(0, int(v*histogramBins)))
		out[i/plane*histogramBins+bin] += 1 / float64(len(p.Pixels))
	}
	return out
}

// apart is half the sum of two histograms' differences: 0 for the same, 1 for nothing in
// common.
func apart(a, b []float64) (sum float64) {
	for i := range a {
		sum += math.Abs(a[i]-b[i]) / 2
	}
	return sum
}
