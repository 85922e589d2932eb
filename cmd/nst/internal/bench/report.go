package bench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/seed9bb5c928/nst/torch"
)

// Version is that of the reports' schema. It grows when a field changes its meaning or goes;
// fields that are added are none to a program that does not know them.
const Version = 1

// Schema is the JSON schema of reports.
//
//go:embed schema.json
var Schema []byte

// Report is what was measured on one device: what nst bench --json prints. Times are in
// seconds, sizes in pixels.
type Report struct {
	Schema    int          `json:"schema"` // Version
	Time      time.Time    `json:"time"`
	Suite     string       `json:"suite,omitempty"`
	Device    torch.Device `json:"device"`
	Precision string       `json:"precision"`
	Kernels   string       `json:"kernels"` // of the CPU
	Threads   int          `json:"threads"`
	Peak      float64      `json:"matrix_gflops"` // of a matrix product on this device
	Machine   Machine      `json:"machine"`
	// Load is what opening the network took.
	Load    float64   `json:"load_seconds"`
	Results []Result  `json:"results"`
	Failed  []Failure `json:"failed,omitempty"`
}

// Result is a workload's.
type Result struct {
	Workload        string `json:"workload"`
	WorkloadVersion int    `json:"workload_version"`
	Size            int    `json:"size"`
	Batch           int    `json:"batch"`
	Optimizer       string `json:"optimizer"`
	// Flags are what a workload that is no recipe (version 0) was asked for beside its size.
	Flags string `json:"flags,omitempty"`
	// SecondsPerIteration and Min are Burst's. An iteration is waited for before the next.
	SecondsPerIteration float64 `json:"seconds_per_iteration"`
	Min                 float64 `json:"min"`
	IterationsPerSecond float64 `json:"iterations_per_second"` // times Batch
	// Ahead is of one iteration, if 32 are sent without waiting; null on the CPU.
	Ahead *float64 `json:"seconds_ahead"`
	// GFLOPs is by the network's arithmetic; null where that is not known.
	GFLOPs     *float64 `json:"gflops"`
	PeakMemory int64    `json:"peak_memory_bytes"`
	Tiles      int      `json:"tiles"`
	First      float64  `json:"first_iteration_seconds"`
	Autotune   float64  `json:"autotune_seconds"`
	Replayed   int      `json:"replayed_iterations"` // from a graph, of all
	WarmUp     *WarmUp  `json:"warm_up"`             // null of a whole picture
	// Burst is of iterations one after the other; of a whole picture, those at its last
	// scale, short ones taken together.
	Burst     Series     `json:"burst"`
	Telemetry Telemetry  `json:"telemetry"` // of Burst or, of a whole picture, of it
	Sustained *Sustained `json:"sustained"`
	Whole     *Whole     `json:"whole"`
	// Warnings say what makes the figures doubtful.
	Warnings []string              `json:"warnings"`
	Peers    map[string]PeerResult `json:"peers,omitempty"`
	Process  *WholeProcess         `json:"process,omitempty"`
}

// WarmUp is what comes before the figures: iterations until the median stands still.
type WarmUp struct {
	Seconds    float64 `json:"seconds"`
	Iterations int     `json:"iterations"`
	Steady     bool    `json:"steady"` // it stood still in the end
}

// Sustained is what a device does for long.
type Sustained struct {
	Series
	Telemetry Telemetry `json:"telemetry"`
}

// Whole is of a whole picture: from the pictures in memory to the finished file.
type Whole struct {
	Seconds    float64 `json:"seconds"`
	Iterations int     `json:"iterations"` // of the workload
	// Measured is how many iterations were run. Where these are fewer, Seconds is
	// Extrapolated: what was not an iteration, and as many as there would have been.
	Measured     int  `json:"measured_iterations"`
	Extrapolated bool `json:"extrapolated"`
	// Energy is extrapolated as Seconds is.
	Energy *float64 `json:"energy_joules"`
}

// Failure is a workload that could not be measured.
type Failure struct {
	Workload string `json:"workload"`
	Error    string `json:"error"`
}

// Key says which results are of the same work.
func (r Result) Key() string {
	key := fmt.Sprintf("%s@%d/%s/batch=%d", r.Workload, r.WorkloadVersion, r.Optimizer, r.Batch)
	if r.Flags != "" {
		key += " " + r.Flags
	}
	return key
}

var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("schema.json", document); err != nil {
		return nil, err
	}
	return compiler.Compile("schema.json")
})

// Validate holds JSON against the schema.
func Validate(data []byte) error {
	s, err := schema()
	if err != nil {
		return err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("is no JSON: %w", err)
	}
	if object, ok := document.(map[string]any); ok && object["schema"] != nil {
		if v := fmt.Sprint(object["schema"]); v != fmt.Sprint(Version) {
			return fmt.Errorf("is of schema %s; this program reads %d", v, Version)
		}
	}
	if err := s.Validate(document); err != nil {
		lines := strings.Split(err.Error(), "\n")
		return fmt.Errorf("is no report of nst bench: %s", strings.TrimSpace(lines[len(lines)-1]))
	}
	return nil
}

// Read reads a report's file, which has to be as the schema says.
func Read(path string) (*Report, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeDevice != 0 { // some never end
		return nil, UsageError{fmt.Errorf("%s is a device", path)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, UsageError{err}
	}
	if err := Validate(data); err != nil {
		return nil, UsageError{fmt.Errorf("%s %w", path, err)}
	}
	r := &Report{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, UsageError{fmt.Errorf("%s: %w", path, err)}
	}
	return r, nil
}

// UsageError is an error of who asked: a flag or a file.
type UsageError struct{ error }

// Unwrap is what is wrong.
func (e UsageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }
