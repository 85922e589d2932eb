package bench

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// NamedReport is a report and the name of its file, without its ending.
type NamedReport struct {
	Name string
	*Report
}

// ReadFolder reads all reports of a folder, in the order of their names.
func ReadFolder(folder string) (all []NamedReport, err error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, usage("%s has no reports: files of nst bench --json, whose names end in .json", folder)
	}
	var failed []error
	for _, path := range paths {
		r, err := Read(path)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, NamedReport{strings.TrimSuffix(filepath.Base(path), ".json"), r})
	}
	return all, errors.Join(failed...)
}

// The page's parts.
type (
	pageView struct {
		Machines  []machineView
		Workloads []workloadView
	}
	machineView struct {
		Name, Text, When, Device, Precision, Program string
		Peak                                         string
	}
	workloadView struct {
		Title, About string
		Rows         []rowView
		Whole        bool
	}
	rowView struct {
		Name, Device, Precision string
		Median, Quartiles       string
		Rate, Sustained, Energy string
		Whole, Memory, PyTorch  string
		Share                   float64 // of the longest bar, in per cent
		Warnings                []string

		rate float64
	}
)

// WritePage writes a page of reports, which needs no other file: a table and bars for each
// workload, by device and precision.
func WritePage(w io.Writer, reports []NamedReport) error {
	var view pageView
	at := map[string]int{} // of workloads
	for _, r := range reports {
		device := string(r.Device)
		if g := r.Machine.GPU; g != nil && g.Name != nil {
			device = *g.Name
		} else if r.Machine.CPU.Model != nil {
			device = fmt.Sprintf("%s, %d threads", *r.Machine.CPU.Model, r.Threads)
		}
		view.Machines = append(view.Machines, machineView{r.Name, r.Machine.text(), r.Time.Format("2006-01-02"), device,
			r.Precision, r.Machine.Program, humanize.CommafWithDigits(r.Peak, 0)})
		for _, result := range r.Results {
			key := result.Key()
			i, ok := at[key]
			if !ok {
				i, at[key] = len(view.Workloads), len(view.Workloads)
				view.Workloads = append(view.Workloads, workloadView{Title: result.name(), About: aboutOf(result),
					Whole: result.Whole != nil})
			}
			view.Workloads[i].Rows = append(view.Workloads[i].Rows, row(r, result, device))
		}
	}
	for _, one := range view.Workloads {
		slices.SortStableFunc(one.Rows, func(a, b rowView) int { return -cmp.Compare(a.rate, b.rate) })
		for i := range one.Rows {
			one.Rows[i].Share = 100 * one.Rows[i].rate / one.Rows[0].rate
		}
	}
	return page.Execute(w, view)
}

// aboutOf is what a recipe says of itself.
func aboutOf(r Result) string {
	for _, suite := range Suites {
		for _, w := range suite {
			o, err := w.Options.Resolve()
			same := w.Name == r.Workload && w.Version == r.WorkloadVersion
			if err == nil && same && string(o.Optimizer) == r.Optimizer {
				return w.About
			}
		}
	}
	return r.Flags
}

func row(r NamedReport, of Result, device string) rowView {
	v := rowView{Name: r.Name, Device: device, Precision: r.Precision, Median: secondsText(of.SecondsPerIteration),
		Quartiles: secondsText(of.Burst.Lower) + " – " + secondsText(of.Burst.Upper),
		Rate:      fmt.Sprintf("%.3g", of.IterationsPerSecond), Memory: humanize.IBytes(uint64(of.PeakMemory)),
		Warnings: of.Warnings, rate: of.IterationsPerSecond}
	if of.Sustained != nil {
		v.Sustained = secondsText(of.Sustained.Median)
	}
	if e := of.Telemetry.EnergyPerIteration; e != nil {
		v.Energy = fmt.Sprintf("%.3g J", *e)
	}
	if of.Whole != nil {
		v.Whole, v.rate = fmt.Sprintf("%.1f s", of.Whole.Seconds), 1/of.Whole.Seconds
		if of.Whole.Extrapolated {
			v.Whole += fmt.Sprintf(" (from %d of %d iterations)", of.Whole.Measured, of.Whole.Iterations)
		}
	}
	if best := of.best(); best != "" {
		v.PyTorch = fmt.Sprintf("%.2f of %s's (%s)", of.Peers[best].Ratio, best,
			secondsText(of.Peers[best].SecondsPerIteration))
	}
	return v
}
