package bench

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/sysfs"

	"github.com/seed9bb5c928/nst/torch"
)

// Machine is what figures were measured on. What cannot be read is null.
type Machine struct {
	System   string `json:"system"` // the kernel and its version
	CPU      CPU    `json:"cpu"`
	Memory   *int64 `json:"memory_bytes"`
	GPU      *GPU   `json:"gpu"`
	Libtorch string `json:"libtorch"`
	Program  string `json:"program"` // nst's version
}

// CPU is a machine's processors.
type CPU struct {
	Model *string `json:"model"`
	// Cores are physical ones, Processors what the system schedules on.
	Cores      *int `json:"cores"`
	Processors int  `json:"processors"`
	// Kernels is the instruction set that nst's own kernels use, Threads how many they have.
	Kernels  string   `json:"kernels"`
	Threads  int      `json:"threads"`
	Governor *string  `json:"governor"`
	MaxClock *float64 `json:"max_clock_mhz"`
}

// GPU is the card that a device is.
type GPU struct {
	Name       *string  `json:"name"`
	Capability *string  `json:"compute_capability"`
	Driver     *string  `json:"driver"`
	Bus        *string  `json:"bus"`
	Memory     *int64   `json:"memory_bytes"`
	PowerLimit *float64 `json:"power_limit_watts"`
	MaxClock   *float64 `json:"max_sm_clock_mhz"`
}

// describe is a machine as its device is used. The card is nil where the device is none.
func describe(card *card, threads int, program string) Machine {
	m := Machine{
		System:   runtime.GOOS + " " + runtime.GOARCH,
		CPU:      CPU{Processors: runtime.NumCPU(), Kernels: torch.KernelsName(), Threads: threads},
		Libtorch: torch.Version(), Program: program,
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System = runtime.GOOS + " " + strings.TrimSpace(string(kernel)) + " " + runtime.GOARCH
	}
	if card != nil {
		m.GPU = card.describe()
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return m
	}
	if memory, err := fs.Meminfo(); err == nil && memory.MemTotalBytes != nil {
		m.Memory = new(int64(*memory.MemTotalBytes))
	}
	all, err := fs.CPUInfo()
	if err != nil || len(all) == 0 {
		return m
	}
	cores := map[string]bool{}
	for _, one := range all {
		cores[one.PhysicalID+"/"+one.CoreID] = true
	}
	if one := all[0]; one.ModelName != "" {
		m.CPU.Model = new(strings.Join(strings.Fields(one.ModelName), " ") + family(one))
	}
	if all[0].CoreID != "" {
		m.CPU.Cores = new(len(cores))
	}
	m.CPU.Governor = known(firstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
	khz, err := strconv.ParseFloat(firstLine("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"), 64)
	if err == nil {
		m.CPU.MaxClock = new(khz / 1000)
	}
	return m
}

// firstLine is a file's, or "".
func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// family tells processors apart whose name is their maker's alone, as in virtual machines.
func family(one procfs.CPUInfo) string {
	if one.CPUFamily == "" {
		return ""
	}
	return fmt.Sprintf(" (family %s, model %s)", one.CPUFamily, one.Model)
}

// clockFiles are where the kernel says what clocks the processors have.
var clockFiles = sync.OnceValue(func() []string {
	all, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
	return all
})

// cpuClock is the mean clock, in MHz, of as many processors as compute: the fastest, since
// others rest. It is NaN if unknown, and of a card's work.
func (w *watcher) cpuClock() float64 {
	if w.card != nil {
		return math.NaN()
	}
	var clocks []float64
	for _, path := range clockFiles() {
		if khz, err := strconv.ParseFloat(firstLine(path), 64); err == nil {
			clocks = append(clocks, khz/1000)
		}
	}
	if fs, err := procfs.NewDefaultFS(); err == nil && len(clocks) == 0 {
		all, _ := fs.CPUInfo()
		for _, one := range all {
			if one.CPUMHz > 0 {
				clocks = append(clocks, one.CPUMHz)
			}
		}
	}
	slices.SortFunc(clocks, func(a, b float64) int { return cmp.Compare(b, a) })
	clocks = clocks[:min(len(clocks), max(1, w.threads))]
	sum := 0.0
	for _, c := range clocks {
		sum += c
	}
	return sum / float64(len(clocks)) // NaN of none
}

// rapl is the energy that the processors' packages have used, in microjoules, by zone; nil if
// it cannot be read (it is root's on most systems).
func rapl() (used, wraps map[string]uint64) {
	fs, err := sysfs.NewDefaultFS()
	if err != nil {
		return nil, nil
	}
	zones, err := sysfs.GetRaplZones(fs)
	if err != nil {
		return nil, nil
	}
	used, wraps = map[string]uint64{}, map[string]uint64{}
	for _, z := range zones {
		// intel-rapl:N is a package, on AMD's processors too; intel-rapl:N:M a part of one, and
		// intel-rapl-mmio:N the same one again.
		if base := filepath.Base(z.Path); !strings.HasPrefix(base, "intel-rapl:") || strings.Count(base, ":") != 1 {
			continue
		}
		text, err := os.ReadFile(filepath.Join(z.Path, "energy_uj"))
		if err != nil {
			return nil, nil
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return nil, nil
		}
		used[z.Path], wraps[z.Path] = n, z.MaxMicrojoules
	}
	return used, wraps
}

// joules is what was used between two readings of rapl, whose counters begin anew at wraps.
func joules(before, after, wraps map[string]uint64) (sum float64, known bool) {
	for zone, from := range before {
		to, ok := after[zone]
		if !ok {
			return 0, false
		}
		if to < from {
			to += wraps[zone]
		}
		sum += float64(to-from) / 1e6
	}
	return sum, len(before) > 0
}
