package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// Difference is what two reports say of the same work.
type Difference struct {
	Workload string  `json:"workload"`
	Before   float64 `json:"before_seconds"` // medians
	After    float64 `json:"after_seconds"`
	Ratio    float64 `json:"ratio"` // of After to Before
	// P is how likely a difference like this is if there is none (Mann and Whitney's U test
	// of all repetitions).
	P float64 `json:"p"`
	// Beyond says that the difference is beyond the noise: P is below 0.05, the medians are
	// further apart than half of the quartiles' distance, and by more than BetweenRuns, which
	// two runs of one program may differ by.
	Beyond bool   `json:"beyond_noise"`
	Note   string `json:"note,omitempty"`
}

// significance is the P from which on a difference is taken for one.
const significance = 0.05

// BetweenRuns is by how much medians of two runs may differ though nothing has changed.
const BetweenRuns = 0.03

// Compare holds the results of two reports against each other, in the order of the first. The
// work of only one of them is in alone.
func Compare(before, after *Report) (all []Difference, alone []string) {
	find := func(r *Report, key string) *Result {
		i := slices.IndexFunc(r.Results, func(one Result) bool { return one.Key() == key })
		if i < 0 {
			return nil
		}
		return &r.Results[i]
	}
	for _, a := range before.Results {
		b := find(after, a.Key())
		if b == nil {
			alone = append(alone, a.Key()+" is in the first alone")
			continue
		}
		all = append(all, differ(a.Key(), a.Burst, b.Burst))
		if a.Sustained != nil && b.Sustained != nil {
			all = append(all, differ(a.Key()+", sustained", a.Sustained.Series, b.Sustained.Series))
		}
		if a.Whole != nil && b.Whole != nil {
			all = append(all, Difference{Workload: a.Key() + ", the whole picture", Before: a.Whole.Seconds,
				After: b.Whole.Seconds, Ratio: b.Whole.Seconds / a.Whole.Seconds, P: 1,
				Note: "one picture each: no noise is known"})
		}
	}
	for _, b := range after.Results {
		if find(before, b.Key()) == nil {
			alone = append(alone, b.Key()+" is in the second alone")
		}
	}
	return all, alone
}

func differ(what string, a, b Series) Difference {
	d := Difference{Workload: what, Before: a.Median, After: b.Median, Ratio: b.Median / a.Median}
	test := benchmath.AssumeNothing.Compare(benchmath.NewSample(slices.Clone(a.Seconds), &benchmath.DefaultThresholds),
		benchmath.NewSample(slices.Clone(b.Seconds), &benchmath.DefaultThresholds))
	d.P = test.P
	apart, within := d.After-d.Before, (a.Upper-a.Lower+b.Upper-b.Lower)/4
	d.Beyond = d.P < significance && max(apart, -apart) > max(within, BetweenRuns*a.Median)
	for _, w := range test.Warnings {
		d.Note = w.Error()
	}
	return d
}

// WriteComparison writes what Compare finds as a table.
func WriteComparison(w io.Writer, before, after *Report) error {
	fmt.Fprintf(w, "before: %s %s, %s\n", before.Device, before.Precision, before.Machine.text())
	fmt.Fprintf(w, "after:  %s %s, %s\n\n", after.Device, after.Precision, after.Machine.text())
	all, alone := Compare(before, after)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "workload\tbefore\tafter\tratio\tp\t")
	for _, d := range all {
		verdict := "no difference beyond the noise"
		switch {
		case d.Beyond && d.Ratio < 1:
			verdict = fmt.Sprintf("faster by %.1f %%", 100*(1-d.Ratio))
		case d.Beyond:
			verdict = fmt.Sprintf("slower by %.1f %%", 100*(d.Ratio-1))
		}
		p := fmt.Sprintf("%.3f", d.P)
		if d.Note != "" {
			verdict = d.Note
		}
		if strings.HasSuffix(d.Workload, "the whole picture") {
			p = ""
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%.3f\t%s\t%s\n", d.Workload, secondsText(d.Before), secondsText(d.After),
			d.Ratio, p,
			verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, line := range alone {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// secondsText is a time with three digits that count.
func secondsText(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.3g ms", 1000*s)
	}
	return fmt.Sprintf("%.3g s", s)
}

// WriteBenchFormat writes a report in the format of Go's benchmarks, which benchstat reads: a
// line for each repetition.
func (b *Report) WriteBenchFormat(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	configuration := map[string]string{"device": string(b.Device), "precision": b.Precision,
		"libtorch": b.Machine.Libtorch,
		"program":  b.Machine.Program}
	if b.Machine.CPU.Model != nil {
		configuration["cpu"] = *b.Machine.CPU.Model
	}
	if g := b.Machine.GPU; g != nil && g.Name != nil {
		configuration["gpu"] = *g.Name
	}
	for _, key := range []string{"device", "gpu", "cpu", "precision", "libtorch", "program"} {
		if value := configuration[key]; value != "" {
			line("%s: %s", key, value)
		}
	}
	for _, r := range b.Results {
		name := fmt.Sprintf("Benchmark%s/version=%d/optimizer=%s/batch=%d-%d", title(r.Workload), r.WorkloadVersion,
			r.Optimizer, r.Batch, b.Threads)
		for _, s := range r.Burst.Seconds {
			line("%s 1 %.0f ns/op", name, 1e9*s)
		}
		if r.Whole != nil {
			line("%s 1 %.0f ns/op", strings.Replace(name, "/", "Whole/", 1), 1e9*r.Whole.Seconds)
		}
	}
	return err
}

// title is a name with a capital, as benchmarks' are.
func title(name string) string { return strings.ToUpper(name[:1]) + name[1:] }
