package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/torch"
)

// pins are the wheels of libtorch, which scripts/setup reads too.
//
//go:embed libtorch.txt
var pins string

// wheels are the pinned requirements: those that the CPU needs, and what CUDA needs
// beside.
func wheels() (cpu, cuda []string) {
	into := &cpu
	for line := range strings.Lines(pins) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "# For CUDA"):
			into = &cuda
		case line != "" && !strings.HasPrefix(line, "#"):
			*into = append(*into, line)
		}
	}
	return cpu, cuda
}

var limits = regexp.MustCompile(`(?m)^# For CUDA.* compute capability ([0-9.]+) and driver ([0-9]+) on`)

// leastCard is the compute capability from which on those wheels have code, and the driver
// that their CUDA wants.
func leastCard() (capability, driver float64) {
	found := limits.FindStringSubmatch(pins)
	capability, _ = strconv.ParseFloat(found[1], 64)
	driver, _ = strconv.ParseFloat(found[2], 64)
	return capability, driver
}

// libtorchPlace is where a libtorch may be.
type libtorchPlace struct {
	Where string `json:"where"`           // in words
	Path  string `json:"path,omitempty"`  // of its libraries; empty: there is none
	CUDA  bool   `json:"cuda"`            // whether it has CUDA's part
	Wrong string `json:"wrong,omitempty"` // why it cannot be used
	Used  bool   `json:"used"`            // it is the one
}

// usable says whether a place has a libtorch that this program can load.
func (p libtorchPlace) usable() bool { return p.Path != "" && p.Wrong == "" }

// String is a line of nst doctor.
func (p libtorchPlace) String() string {
	text := p.Where + ": "
	if p.Path == "" {
		return text + "none"
	}
	text += p.Path
	if p.CUDA {
		text += ", with CUDA"
	}
	if p.Used {
		text += " (used)"
	}
	if p.Wrong != "" {
		text += ": " + p.Wrong
	}
	return text
}

// look finds out what is in a place; a folder is libtorch's, or that of its libraries.
func look(where string, folders ...string) libtorchPlace {
	p := libtorchPlace{Where: where}
	for _, folder := range folders {
		if folder == "" {
			continue
		}
		for _, lib := range []string{filepath.Join(folder, "lib"), folder} {
			if !exists(filepath.Join(lib, "libtorch_cpu.so")) {
				continue
			}
			if real, err := filepath.EvalSymlinks(lib); err == nil {
				lib = real
			}
			p.Path, p.CUDA = lib, exists(filepath.Join(lib, "libtorch_cuda.so")) && hasCUDALibraries(lib)
			switch v := libtorchVersion(filepath.Dir(lib)); {
			case v == torch.Version(), where == besideUs:
			case v == "":
				p.Wrong = "it does not say its version (version.py or build-version)"
			default:
				p.Wrong = fmt.Sprintf("it is %s, and this program was compiled for %s", v, torch.Version())
			}
			return p
		}
	}
	return p
}

// hasCUDALibraries says whether NVIDIA's libraries are there too, as the torch wheel wants
// them: beside it. A libtorch of another kind brings its own.
func hasCUDALibraries(lib string) bool {
	site := filepath.Dir(filepath.Dir(lib))
	wheel, _ := filepath.Glob(filepath.Join(site, "torch-*.dist-info"))
	cublas, _ := filepath.Glob(filepath.Join(site, "nvidia", "*", "lib", "libcublas.so.*"))
	return len(wheel) == 0 || len(cublas) > 0
}

var pythonVersion = regexp.MustCompile(`__version__ = '([0-9.]+)`)

// libtorchVersion is the version of the libtorch in a folder, without what it was built
// for ("+cu130"); empty if nothing says it.
func libtorchVersion(folder string) string {
	if data, err := os.ReadFile(filepath.Join(folder, "version.py")); err == nil {
		if m := pythonVersion.FindSubmatch(data); m != nil {
			return string(m[1])
		}
	}
	data, _ := os.ReadFile(filepath.Join(folder, "build-version"))
	version, _, _ := strings.Cut(strings.TrimSpace(string(data)), "+")
	return version
}

// libtorchPlaces are the places in their order, and which of them is used: where there is
// an NVIDIA driver the first that has CUDA's part, else the first that has any. Python is
// asked for its own if that is left, or if everywhere is true.
func libtorchPlaces(everywhere bool) []libtorchPlace {
	var all []libtorchPlace
	if folder := os.Getenv("LIBTORCH"); folder != "" {
		all = append(all, look("$LIBTORCH", folder))
	}
	if top, err := programFolder(); err == nil {
		all = append(all, look(besideUs, filepath.Join(top, "lib"), filepath.Join(top, "libtorch")))
	}
	if folder, err := cudaFolder(); err == nil {
		p := look("the cache", filepath.Join(folder, "torch"))
		p.CUDA = p.CUDA && exists(filepath.Join(folder, "nvidia", ".complete"))
		all = append(all, p)
	}
	driver := torch.HasNVIDIADriver()
	withCUDA := func(p libtorchPlace) bool { return p.usable() && p.CUDA }
	if everywhere || driver && !slices.ContainsFunc(all, withCUDA) {
		all = append(all, look("Python's", pythonTorch()))
	}
	used := -1
	if driver {
		used = slices.IndexFunc(all, withCUDA)
	}
	if used < 0 {
		used = slices.IndexFunc(all, libtorchPlace.usable)
	}
	if used >= 0 {
		all[used].Used = true
	}
	return all
}

// besideUs is the place that the program's libraries find by themselves.
const besideUs = "beside the program"

// cudaFolder is where nst install cuda and scripts/setup unpack libtorch's wheels.
func cudaFolder() (string, error) {
	cache, err := cacheFolder()
	return filepath.Join(cache, "libtorch-"+torch.Version()), err
}

// pythonTorch is the folder of an installed Python's torch; empty if there is none. It is
// found without importing it.
func pythonTorch() string {
	// Not of the folder that the user is in, which Python would look into first.
	out, err := exec.Command(python(), "-c", "import sys; sys.path = [p for p in sys.path if p]; "+
		"import importlib.util as u; s = u.find_spec('torch'); "+
		"print(list(s.submodule_search_locations)[0] if s else '')").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// python is the Python that pip is asked of.
func python() string {
	if p := os.Getenv("NST_PYTHON"); p != "" {
		return p
	}
	return "python3"
}

// useLibtorch has the program load libtorch from where it is best: see libtorchPlaces. A
// folder that is named takes $LIBTORCH's place, here and in the processes that this one
// starts. It comes before anything that loads libtorch.
func useLibtorch(named string, stderr io.Writer) error {
	if named != "" {
		p := look("--libtorch", named)
		if p.Path == "" {
			return usage("--libtorch: %s has no lib/libtorch_cpu.so", named)
		}
		if p.Wrong != "" {
			return usage("--libtorch: %s cannot be used: %s", named, p.Wrong)
		}
		if err := os.Setenv("LIBTORCH", filepath.Dir(p.Path)); err != nil {
			return err
		}
		return torch.UseLibtorch(p.Path)
	}
	if os.Getenv("LIBTORCH") == "" && !torch.HasNVIDIADriver() {
		return nil
	}
	for _, p := range libtorchPlaces(false) {
		if p.Where == "$LIBTORCH" && !p.usable() && os.Getenv(natsVariable) == "" {
			fmt.Fprintf(stderr, "nst: $LIBTORCH is not used: %s\n", cmp.Or(p.Wrong, "it has no lib/libtorch_cpu.so"))
		}
		if p.Used && p.Where != besideUs {
			return torch.UseLibtorch(p.Path)
		}
	}
	return nil
}

// pinned says whether the wheels are for this machine and of the version that this program
// was compiled for.
func pinned() bool {
	return runtime.GOOS == "linux" && runtime.GOARCH == "amd64" && strings.Contains(pins, "torch=="+torch.Version()+" ")
}
