package bench

import (
	"fmt"
	"image/color"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chartColours are nst's own and its peers', distinct to most eyes (Okabe and
// Ito's).
var chartColours = []color.RGBA{{213, 94, 0, 255}, {0, 114, 178, 255}, {0, 158, 115, 255}, {204, 121, 167, 255},
	{86, 180, 233, 255}, {230, 159, 0, 255}, {0, 0, 0, 255}}

// Draw writes a chart of seconds an iteration and memory over size, of the first batch, to a
// .svg or .png file.
func (b *Report) Draw(path string) error {
	left, right := plot.New(), plot.New()
	left.Title.Text, right.Title.Text = "seconds an iteration", "peak memory, GiB"
	for _, p := range []*plot.Plot{left, right} {
		p.X.Label.Text, p.X.Scale, p.X.Tick.Marker = "pixels a side", plot.LogScale{}, ticksOf(b.Results)
		p.X.Padding, p.Title.Padding = vg.Points(4), vg.Points(8)
		p.Add(plotter.NewGrid())
	}
	left.Y.Scale, left.Y.Tick.Marker, left.Y.Min = plot.LogScale{}, plot.LogTicks{Prec: -1}, 1e-3
	right.Y.Min = 0
	add := func(name string, i int, at func(r Result) (seconds float64, bytes int64)) error {
		var seconds, memory plotter.XYs
		for _, r := range b.Results {
			s, m := at(r)
			if r.Batch == b.Results[0].Batch && r.Whole == nil && s > 0 {
				seconds = append(seconds, plotter.XY{X: float64(r.Size), Y: s})
				memory = append(memory, plotter.XY{X: float64(r.Size), Y: float64(m) / (1 << 30)})
			}
		}
		for p, points := range map[*plot.Plot]plotter.XYs{left: seconds, right: memory} {
			if len(points) == 0 {
				continue
			}
			line, dots, err := plotter.NewLinePoints(points)
			if err != nil {
				return err
			}
			c := chartColours[i%len(chartColours)]
			line.Color, dots.Color, line.Width, dots.Shape = c, c, vg.Points(1.5), draw.CircleGlyph{}
			p.Add(line, dots)
			if p == left {
				p.Legend.Add(name, line, dots)
			}
		}
		return nil
	}
	err := add("nst "+b.Precision, 0, func(r Result) (float64, int64) {
		return r.SecondsPerIteration,
			r.PeakMemory
	})
	for i, name := range slices.Sorted(maps.Keys(b.Results[0].Peers)) {
		if err == nil {
			err = add("PyTorch "+name, i+1, func(r Result) (float64, int64) {
				return r.Peers[name].SecondsPerIteration, r.Peers[name].PeakMemory
			})
		}
	}
	if err != nil {
		return err
	}
	least := left.Y.Max
	for _, r := range b.Results {
		least = min(least, r.Min)
	}
	left.Legend.Top, left.Legend.Left = true, true
	left.Y.Min = least / 2
	left.Y.Max *= 4 // room for the legend

	width, height := 24*vg.Centimeter, 11*vg.Centimeter
	var canvas vg.CanvasWriterTo
	if strings.EqualFold(filepath.Ext(path), ".svg") {
		canvas = vgsvg.New(width, height)
	} else {
		canvas = vgimg.PngCanvas{Canvas: vgimg.New(width, height)}
	}
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: 8 * vg.Millimeter, PadTop: 3 * vg.Millimeter,
		PadBottom: 3 * vg.Millimeter, PadLeft: 3 * vg.Millimeter, PadRight: 5 * vg.Millimeter}
	both := [][]*plot.Plot{{left, right}}
	for i, c := range plot.Align(both, tiles, draw.New(canvas))[0] {
		both[0][i].Draw(c)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ticksOf are the sizes that were measured.
func ticksOf(results []Result) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, r := range results {
		ticks = append(ticks, plot.Tick{Value: float64(r.Size), Label: fmt.Sprint(r.Size)})
	}
	return ticks
}
