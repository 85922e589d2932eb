package bench

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/ebitengine/purego"

	"github.com/seed9bb5c928/nst/torch"
)

// nvmlName is NVIDIA's management library, which comes with the driver.
const nvmlName = "libnvidia-ml.so.1"

// nvml is what is used of it. It is loaded when it is first asked for, and stays; a function
// that a driver does not have is nil. Statuses are 0 where all is well.
type nvml struct {
	init         func() int32
	driver       func(version *byte, length uint32) int32
	byBus        func(bus string, handle *uintptr) int32
	clock        func(handle uintptr, kind uint32, mhz *uint32) int32
	maxClock     func(handle uintptr, kind uint32, mhz *uint32) int32
	power        func(handle uintptr, milliwatts *uint32) int32
	powerLimit   func(handle uintptr, milliwatts *uint32) int32
	energy       func(handle uintptr, millijoules *uint64) int32
	temperature  func(handle uintptr, sensor uint32, celsius *uint32) int32
	throttled    func(handle uintptr, reasons *uint64) int32
	memory       func(handle uintptr, memory *nvmlMemory) int32
	errorMessage func(status int32) string
}

// nvmlMemory is nvmlMemory_t: in all, free, used.
type nvmlMemory struct{ total, _, used uint64 }

// Clocks of nvmlClockType_t, and the one sensor of nvmlTemperatureSensors_t.
const (
	clockSM      = 1
	clockMemory  = 2
	sensorOfChip = 0
)

// throttleReasons are nvmlClocksThrottleReasons' that slow a device that is busy.
var throttleReasons = map[uint64]string{
	0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost",
	0x20: "thermal (driver)", 0x40: "thermal (hardware)", 0x80: "power brake", 0x100: "display clocks",
}

// openNVML loads the library of a name.
func openNVML(name string) (n *nvml, err error) {
	library, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	n = &nvml{}
	for symbol, function := range map[string]any{
		"nvmlInit_v2": &n.init, "nvmlSystemGetDriverVersion": &n.driver,
		"nvmlDeviceGetHandleByPciBusId_v2": &n.byBus, "nvmlDeviceGetClockInfo": &n.clock,
		"nvmlDeviceGetMaxClockInfo": &n.maxClock, "nvmlDeviceGetPowerUsage": &n.power,
		"nvmlDeviceGetEnforcedPowerLimit": &n.powerLimit, "nvmlDeviceGetTotalEnergyConsumption": &n.energy,
		"nvmlDeviceGetTemperature": &n.temperature, "nvmlDeviceGetCurrentClocksThrottleReasons": &n.throttled,
		"nvmlDeviceGetMemoryInfo": &n.memory, "nvmlErrorString": &n.errorMessage,
	} {
		if at, err := purego.Dlsym(library, symbol); err == nil {
			purego.RegisterFunc(function, at)
		}
	}
	if n.init == nil || n.byBus == nil {
		return nil, fmt.Errorf("%s is no NVML", name)
	}
	if status := n.init(); status != 0 {
		return nil, fmt.Errorf("NVML does not begin: %s", n.explain(status))
	}
	return n, nil
}

func (n *nvml) explain(status int32) string {
	if n.errorMessage == nil {
		return fmt.Sprint(status)
	}
	return n.errorMessage(status)
}

// loadNVML is the driver's NVML, loaded once.
var loadNVML = sync.OnceValues(func() (*nvml, error) { return openNVML(nvmlName) })

// card is an NVIDIA card as NVML shows it.
type card struct {
	nvml   *nvml
	handle uintptr
	bus    string
	torch  string // its name and compute capability, by libtorch
}

// cardOf finds a CUDA device's card by the bus that libtorch says it is on, whatever
// CUDA_VISIBLE_DEVICES numbers it as. It is nil for other devices; without NVML it has what
// libtorch knows of it.
func cardOf(device torch.Device) *card {
	name := torch.Card(device)
	if name == "" {
		return nil
	}
	c := &card{torch: name, bus: torch.CardBus(device)}
	if n, err := loadNVML(); err == nil && c.bus != "" {
		c.open(n)
	}
	return c
}

func (c *card) open(n *nvml) {
	if n.byBus(c.bus, &c.handle) == 0 {
		c.nvml = n
	}
}

// number is a reading of 32 bits, NaN where there is none.
func (c *card) number(get func(n *nvml, out *uint32) int32) float64 {
	var out uint32
	if c == nil || c.nvml == nil || get(c.nvml, &out) != 0 {
		return math.NaN()
	}
	return float64(out)
}

// missing is the status of a function that the driver does not have.
const missing = -1

func (c *card) clock(kind uint32) float64 {
	return c.number(func(n *nvml, out *uint32) int32 {
		if n.clock == nil {
			return missing
		}
		return n.clock(c.handle, kind, out)
	})
}

func (c *card) watts() float64 {
	return c.number(func(n *nvml, out *uint32) int32 {
		if n.power == nil {
			return missing
		}
		return n.power(c.handle, out)
	}) / 1000
}

func (c *card) celsius() float64 {
	return c.number(func(n *nvml, out *uint32) int32 {
		if n.temperature == nil {
			return missing
		}
		return n.temperature(c.handle, sensorOfChip, out)
	})
}

// joules is what the card has used since the driver was loaded; NaN if it does not count.
func (c *card) joules() float64 {
	var out uint64
	if c == nil || c.nvml == nil || c.nvml.energy == nil || c.nvml.energy(c.handle, &out) != 0 {
		return math.NaN()
	}
	return float64(out) / 1000
}

// reasons are why the card is slower now than it could be.
func (c *card) reasons() (all []string, known bool) {
	var bits uint64
	if c == nil || c.nvml == nil || c.nvml.throttled == nil || c.nvml.throttled(c.handle, &bits) != 0 {
		return nil, false
	}
	for bit, name := range throttleReasons {
		if bits&bit != 0 {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all, true
}

func (c *card) memory() (m nvmlMemory, known bool) {
	if c == nil || c.nvml == nil || c.nvml.memory == nil || c.nvml.memory(c.handle, &m) != 0 {
		return m, false
	}
	return m, true
}

// describe is what does not change.
func (c *card) describe() *GPU {
	g := &GPU{}
	if c.bus != "" {
		g.Bus = new(c.bus)
	}
	name, capability, _ := strings.Cut(c.torch, ", compute capability ")
	g.Name, g.Capability = new(name), known(capability)
	if c.nvml == nil {
		return g
	}
	text := func(get func(*byte, uint32) int32) *string {
		var buffer [96]byte
		if get(&buffer[0], uint32(len(buffer))) != 0 {
			return nil
		}
		end := bytes.IndexByte(buffer[:], 0)
		return known(string(buffer[:max(0, end)]))
	}
	if c.nvml.driver != nil {
		g.Driver = text(c.nvml.driver)
	}
	if m, ok := c.memory(); ok {
		g.Memory = new(int64(m.total))
	}
	g.PowerLimit = finite(c.number(func(n *nvml, out *uint32) int32 {
		if n.powerLimit == nil {
			return missing
		}
		return n.powerLimit(c.handle, out)
	}) / 1000)
	g.MaxClock = finite(c.number(func(n *nvml, out *uint32) int32 {
		if n.maxClock == nil {
			return missing
		}
		return n.maxClock(c.handle, clockSM, out)
	}))
	return g
}

// known is a text, or nil of an empty one.
func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// finite is a number, or nil of one that is not known.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}
