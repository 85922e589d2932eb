// Package report makes one self-contained HTML page of a transfer: pictures,
// cost curves, settings and timings.
package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"image/color"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

//go:embed report.html
var pageSource string

var pageTemplate = template.Must(template.New("report").Parse(pageSource))

// Report collects what a page shows. It is used by one goroutine at a time.
type Report struct {
	inputs, onTheWay []shown
	content          *picture.Picture // nil: there is none
	points           []nst.Progress   // without their callbacks
	next             float64          // fraction of the work at which a picture is due
	err              error
}

// shown is a picture of the page.
type shown struct {
	Title  string
	Width  int
	Height int
	Source template.URL
}

const (
	// inputSide and waySide are the longest sides at which pictures are shown;
	// the result is shown as it is.
	inputSide, waySide = 512, 256
	// pictures is about how many there are on the way.
	pictures = 8
)

// New returns an empty report.
func New() *Report { return &Report{} }

// AddInput shows a picture that the transfer is made of.
func (r *Report) AddInput(title string, p *picture.Picture) {
	s, err := show(title, p, inputSide)
	r.inputs = append(r.inputs, s)
	r.err = firstError(r.err, err)
}

// SetContent has the result's figure be compared with the content picture, by a slider.
func (r *Report) SetContent(p *picture.Picture) { r.content = p }

// Add takes a point of the curves, and now and then the picture, if there is one.
// It is called from Stylize's callback.
func (r *Report) Add(p nst.Progress) {
	if p.Fraction >= r.next && p.State != nil && !p.Last {
		now, err := p.State.Picture()
		if err == nil {
			var s shown
			s, err = show(fmt.Sprintf("Iteration %d, %d px", p.Iteration, p.Scale), now, waySide)
			r.onTheWay = append(r.onTheWay, s)
		}
		r.err = firstError(r.err, err)
		r.next = p.Fraction + 1.0/pictures
	}
	p.State = nil
	r.points = append(r.points, p)
}

// HTML returns the page. summary is a line of text, settings are JSON.
func (r *Report) HTML(summary, settings string, result *nst.Result) ([]byte, error) {
	side := max(result.Picture.Width, result.Picture.Height)
	final, err := show(fmt.Sprintf("Result, %d×%d", result.Picture.Width, result.Picture.Height), result.Picture, side)
	var content *shown
	if r.content != nil && err == nil {
		var s shown
		s, err = show("Content", r.content, side)
		content = &s
	}
	if err := firstError(r.err, err); err != nil {
		return nil, err
	}
	curves, err := r.curves()
	if err != nil {
		return nil, err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, []byte(settings), "", "  "); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = pageTemplate.Execute(&out, map[string]any{
		"Summary": summary, "Settings": pretty.String(), "Result": final, "Content": content,
		"Inputs": r.inputs, "OnTheWay": r.onTheWay,
		"Curves": template.HTML(curves), "Scales": r.scales(),
	})
	return out.Bytes(), err
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// show embeds a picture, no larger than a side.
func show(title string, p *picture.Picture, side int) (s shown, err error) {
	p = p.Shrunk(side)
	var data bytes.Buffer
	err = p.Encode(&data, picture.JPEG, picture.Encoding{})
	source := "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(data.Bytes())
	return shown{title, p.Width, p.Height, template.URL(source)}, err
}

// scaleRow is a line of the timings.
type scaleRow struct {
	Side, Iterations int
	Seconds, Each    string
	First, Last      string // totals
}

func (r *Report) scales() (rows []scaleRow) {
	for from := 0; from < len(r.points); {
		to := from
		for to+1 < len(r.points) && r.points[to+1].Scale == r.points[from].Scale {
			to++
		}
		until := r.points[min(to+1, len(r.points)-1)]
		n, seconds := until.Iteration-r.points[from].Iteration, until.Seconds-r.points[from].Seconds
		row := scaleRow{r.points[from].Scale, n, fmt.Sprintf("%.1f", seconds), "–",
			fmt.Sprintf("%.4g", r.points[from].Total), fmt.Sprintf("%.4g", r.points[to].Total)}
		if n > 0 {
			row.Each = fmt.Sprintf("%.3g", seconds/float64(n))
		}
		rows = append(rows, row)
		from = to + 1
	}
	return rows
}

// palette tells up to eight curves apart, also without colour vision (Okabe and
// Ito 2008).
var palette = []color.RGBA{{0, 0, 0, 255}, {230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255},
	{204, 121, 167, 255}, {0, 114, 178, 255}, {213, 94, 0, 255}, {150, 150, 150, 255}}

// curves draws the costs over the iterations, on a logarithmic scale, as SVG.
func (r *Report) curves() (string, error) {
	values := map[string]plotter.XYs{}
	add := func(name string, p nst.Progress, v float64) {
		if v > 0 { // a logarithm shows no zero
			values[name] = append(values[name], plotter.XY{X: float64(p.Iteration), Y: v})
		}
	}
	for _, p := range r.points {
		add("total", p, p.Total)
		add("content", p, p.Content)
		add("variation", p, p.TV)
		for layer, v := range p.Style {
			add("style "+layer, p, v)
		}
	}
	if len(values) == 0 || len(r.points) < 2 {
		return "", nil
	}
	figure := plot.New()
	figure.X.Label.Text, figure.Y.Label.Text = "iteration", "cost"
	figure.Y.Scale, figure.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	figure.Legend.Top, figure.Legend.Padding = true, vg.Points(2)
	figure.Add(plotter.NewGrid())
	names := slices.SortedFunc(maps.Keys(values), func(a, b string) int { // the total first
		return strings.Compare(strings.Replace(a, "total", " ", 1), strings.Replace(b, "total", " ", 1))
	})
	for i, name := range names {
		line, err := plotter.NewLine(values[name])
		if err != nil {
			return "", err
		}
		line.Color = palette[i%len(palette)]
		line.Width = vg.Points(1.2)
		line.Dashes = [][]vg.Length{nil, {vg.Points(5), vg.Points(2)}}[(i/len(palette))%2]
		figure.Add(line)
		figure.Legend.Add(name, line)
	}
	canvas := vgsvg.New(9*vg.Inch, 4.5*vg.Inch)
	figure.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return "", err
	}
	_, svg, _ := strings.Cut(out.String(), "<svg") // without the XML header
	return "<svg" + svg, nil
}
