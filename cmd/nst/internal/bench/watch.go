package bench

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Telemetry is what the machine did while something was timed. What cannot be read is null.
type Telemetry struct {
	CPUClock    *Track   `json:"cpu_clock_mhz"`
	SMClock     *Track   `json:"sm_clock_mhz"`
	MemoryClock *Track   `json:"memory_clock_mhz"`
	Power       *Track   `json:"power_watts"`
	Temperature *Track   `json:"temperature_celsius"`
	Throttled   []string `json:"throttle_reasons"` // seen at any moment; null: not known
	MemoryUsed  *int64   `json:"memory_used_bytes"`
	// Energy is by the card's counter (nvml) or the processors' (rapl), over the whole time.
	EnergySource       *string  `json:"energy_source"`
	Energy             *float64 `json:"energy_joules"`
	EnergyPerIteration *float64 `json:"energy_joules_per_iteration"`
	// Others is how much other programs worked, or a virtual machine's host kept, of the time
	// of the processors that this program may use.
	Others *float64 `json:"others_share"`
}

// Track is a reading before, while, and after something was timed.
type Track struct {
	Before float64 `json:"before"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	After  float64 `json:"after"`
}

// How often a card's sensors are read, and processors': seldom enough to cost nothing, where
// each reading of a clock may take the kernel milliseconds.
const (
	senseEvery    = 200 * time.Millisecond
	senseCPUEvery = time.Second
)

// watcher reads sensors while something is timed, which may be in several turns.
type watcher struct {
	card    *card
	threads int           // that compute on the processors
	end     chan struct{} // of a turn
	ended   sync.WaitGroup
	reading map[string][]float64 // by sensor
	reasons []string             // of throttling
	told    bool                 // there are reasons, if only none

	now, all  marks             // when the turn began, and the sums of all turns
	used      map[string]uint64 // by rapl, when it was read last
	cpuJoules float64
}

// marks are counters that only grow; those that cannot be read are NaN.
type marks struct {
	seconds, busy, own, cardJoules float64
}

// watch reads the sensors of a card or, without one, of the processors on which so many
// threads compute: for the first time now.
func watch(c *card, threads int) *watcher {
	w := &watcher{card: c, threads: threads, reading: map[string][]float64{}}
	w.sense()
	return w
}

func (w *watcher) mark() (m marks) {
	m.seconds, m.busy, m.own = float64(time.Now().UnixNano())/1e9, busySeconds(), ownSeconds()
	m.cardJoules = w.card.joules()
	return m
}

// resume begins a turn.
func (w *watcher) resume() {
	w.used, _ = rapl()
	w.now, w.end = w.mark(), make(chan struct{})
	w.ended.Go(func() {
		every := senseEvery
		if w.card == nil {
			every = senseCPUEvery
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-w.end:
				return
			case <-tick.C:
				w.sense()
				w.count()
			}
		}
	})
}

// count adds what the processors have used since it was called last: often enough for the
// counter not to begin anew twice.
func (w *watcher) count() {
	used, wraps := rapl()
	spent, known := joules(w.used, used, wraps)
	if !known {
		spent = math.NaN()
	}
	w.used = used
	w.cpuJoules += spent
}

// pause ends a turn.
func (w *watcher) pause() {
	m := w.mark()
	close(w.end)
	w.ended.Wait()
	w.count()
	w.all.seconds += m.seconds - w.now.seconds
	w.all.busy += m.busy - w.now.busy
	w.all.own += m.own - w.now.own
	w.all.cardJoules += m.cardJoules - w.now.cardJoules
}

func (w *watcher) sense() {
	for name, value := range map[string]float64{"cpu": w.cpuClock(), "sm": w.card.clock(clockSM),
		"memory": w.card.clock(clockMemory), "power": w.card.watts(), "temperature": w.card.celsius()} {
		if !math.IsNaN(value) {
			w.reading[name] = append(w.reading[name], value)
		}
	}
	reasons, known := w.card.reasons()
	w.told = w.told || known
	for _, r := range reasons {
		if !slices.Contains(w.reasons, r) {
			w.reasons = append(w.reasons, r)
		}
	}
}

// telemetry is what was read, for the last time now: so many iterations were timed meanwhile.
func (w *watcher) telemetry(iterations int) (t Telemetry) {
	w.sense()
	t.CPUClock, t.SMClock, t.MemoryClock = w.track("cpu"), w.track("sm"), w.track("memory")
	t.Power, t.Temperature = w.track("power"), w.track("temperature")
	if w.told {
		t.Throttled = append([]string{}, w.reasons...)
	}
	if m, ok := w.card.memory(); ok {
		t.MemoryUsed = new(int64(m.used))
	}
	spent, source := w.all.cardJoules, "nvml"
	if w.card == nil {
		spent, source = w.cpuJoules, "rapl"
	}
	if t.Energy = finite(spent); t.Energy != nil && iterations > 0 {
		t.EnergySource, t.EnergyPerIteration = &source, new(spent/float64(iterations))
	}
	// The system counts in hundredths of a second: of short times it says nothing.
	if w.all.own >= leastCPUSeconds && w.all.busy >= w.all.own-leastCPUSeconds {
		t.Others = finite(max(0, w.all.busy-w.all.own) / (w.all.seconds * float64(runtime.NumCPU())))
	}
	return t
}

// leastCPUSeconds is from which on others are told from this program.
const leastCPUSeconds = 1.0

// track is a sensor's readings, of which the first and the last are not of the time itself.
func (w *watcher) track(name string) *Track {
	all := w.reading[name]
	if len(all) < 2 {
		return nil
	}
	during := all
	if len(all) > 2 {
		during = all[1 : len(all)-1]
	}
	return &Track{Before: all[0], Min: slices.Min(during), Median: median(during), Max: slices.Max(during),
		After: all[len(all)-1]}
}

// busySeconds is how long the processors have worked, for whomever; NaN if unknown.
func busySeconds() float64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return math.NaN()
	}
	s, err := fs.Stat()
	if err != nil {
		return math.NaN()
	}
	c := s.CPUTotal
	return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
}

// ownSeconds is how long they have worked for this process.
func ownSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return math.NaN()
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// fell is a sensor's median in the first and in the last third of its readings: the same,
// where there are few.
func (w *watcher) fell(name string) (from, to float64) {
	all := w.reading[name]
	n := len(all) / 3
	if n < 3 {
		return 0, 0
	}
	return median(all[:n]), median(all[len(all)-n:])
}
