package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/torch"
	"github.com/spf13/cobra"
)

// diagnosis is what nst doctor finds.
type diagnosis struct {
	LibtorchVersion string `json:"libtorch_version"`
	LibtorchPath    string `json:"libtorch_path"`
	// Libtorchs are the places where one is looked for, in that order.
	Libtorchs []libtorchPlace `json:"libtorch_places"`
	Devices   []deviceReport  `json:"devices"`
	Threads   int             `json:"threads"`
	// Kernels is the instruction set of the fast convolutions on the CPU.
	Kernels     string `json:"kernels"`
	Model       string `json:"model"`
	ModelSource string `json:"model_source"`
	// LayerByLayer says that the model is VGG-19 as fast convolutions want it.
	LayerByLayer bool `json:"layer_by_layer"`
	// Missing are what is missing, each with the command that mends it.
	Missing []string `json:"missing"`
	// CUDA says why there is no CUDA device.
	CUDA string `json:"cuda,omitempty"`
}

type deviceReport struct {
	Name  torch.Device `json:"name"`
	Card  string       `json:"card,omitempty"` // and its compute capability
	Free  int64        `json:"free_bytes"`
	Total int64        `json:"total_bytes"`
}

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine has for nst, and what is missing",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := diagnose(c.Context())
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(d)
			}
			d.print(c.OutOrStdout())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func diagnose(ctx context.Context) *diagnosis {
	d := &diagnosis{LibtorchVersion: torch.Version(), Kernels: torch.KernelsName(), Missing: []string{},
		Libtorchs: libtorchPlaces(true)}
	// CUDA first: libtorch must not be used before its CUDA library is loaded.
	count := 0
	if _, err := torch.ParseDevice("cuda"); err != nil {
		d.CUDA = oneLine(err)
	} else {
		count, _ = torch.DeviceCount("cuda")
	}
	names := []torch.Device{torch.CPU}
	for i := range count {
		names = append(names, torch.Device(fmt.Sprintf("cuda:%d", i)))
	}
	for _, name := range names {
		if m, err := torch.MemoryOf(name); err == nil {
			d.Devices = append(d.Devices, deviceReport{name, torch.Card(name), m.Free, m.Total})
		}
	}
	if path, err := torch.LibraryFolder(); err == nil {
		d.LibtorchPath = path
	}
	model, err := defaultModel()
	if err != nil {
		d.Missing = append(d.Missing, oneLine(err))
		return d
	}
	d.Model = filepath.Clean(model)
	engine, err := nst.Open(ctx, model, nst.OpenOptions{Device: "cpu"})
	if err != nil {
		d.Missing = append(d.Missing, fmt.Sprintf("%s; make it anew with: nst weights default -o %s", oneLine(err),
			d.Model))
		return d
	}
	defer engine.Close()
	d.Threads = engine.Threads()
	if description, err := engine.Describe(ctx); err == nil {
		d.ModelSource, d.LayerByLayer = description.Source, description.LayerByLayer
	}
	return d
}

func (d *diagnosis) print(w io.Writer) {
	fmt.Fprintf(w, "libtorch  %s in %s\n", d.LibtorchVersion, d.LibtorchPath)
	for i, p := range d.Libtorchs {
		fmt.Fprintf(w, "          %d. %s\n", i+1, p)
	}
	for _, device := range d.Devices {
		card := ""
		if device.Card != "" {
			card = " (" + device.Card + ")"
		}
		fmt.Fprintf(w, "device    %s%s, %s of %s free\n", device.Name, card, humanize.IBytes(uint64(device.Free)),
			humanize.IBytes(uint64(device.Total)))
	}
	if d.CUDA != "" {
		fmt.Fprintf(w, "no CUDA   %s\n", d.CUDA)
	}
	if d.Threads > 0 {
		note := ""
		if d.Kernels == "baseline" {
			note = " (this processor has neither AVX2 nor AVX-512: they are slow)"
		}
		fmt.Fprintf(w, "threads   %d, fast convolutions by %s kernels%s\n", d.Threads, d.Kernels, note)
	}
	if d.Model != "" {
		fmt.Fprintf(w, "network   %s\n          %s\n", d.Model, d.ModelSource)
		if d.ModelSource != "" && !d.LayerByLayer {
			fmt.Fprintln(w, "          it is not VGG-19 layer by layer, so it runs as TorchScript, without the "+
				"fast convolutions")
		}
	}
	for _, m := range d.Missing {
		fmt.Fprintf(w, "missing   %s\n", m)
	}
	if len(d.Missing) == 0 {
		fmt.Fprintln(w, "nothing is missing")
	}
}
