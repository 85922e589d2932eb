package nsttest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// A tool that is missing gets one line that names it and the package that mends
// it.
func TestSetupNamesWhatIsMissing(t *testing.T) {
	setup := filepath.Join(nsttest.Root(t), "scripts", "setup")
	tools := []string{"bash", "dirname", "g++", "make", "cmake", "go", "flock", "python3"}
	for tool, want := range map[string]string{
		"g++":     "nst: a C++ compiler is missing (g++): apt install build-essential\n",
		"make":    "nst: make is missing (make): apt install build-essential\n",
		"cmake":   "nst: CMake is missing (cmake): apt install cmake\n",
		"go":      "nst: Go is missing (go): apt install golang-go\n",
		"python3": "nst: Python is missing (python3): apt install python3\n",
	} {
		t.Run(tool, func(t *testing.T) {
			path := t.TempDir()
			for _, name := range tools {
				found, err := exec.LookPath(name)
				require.NoError(t, err)
				if name != tool {
					require.NoError(t, os.Symlink(found, filepath.Join(path, name)))
				}
			}
			assert.Equal(t, want, fail(t, setup, "PATH="+path))
		})
	}
	t.Run("pip", func(t *testing.T) {
		python := filepath.Join(t.TempDir(), "python3")
		require.NoError(t, os.WriteFile(python, []byte("#!/bin/sh\nexit 1\n"), 0o700))
		assert.Equal(t, "nst: pip is missing ("+python+" -m pip): apt install python3-pip\n",
			fail(t, setup, "NST_PYTHON="+python))
	})
	t.Run("Go of old", func(t *testing.T) {
		path := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(path, "go"), []byte("#!/bin/sh\necho go1.19.8\n"), 0o700))
		assert.Contains(t, fail(t, setup, "PATH="+path+":"+os.Getenv("PATH")), "nst: Go 1.19.8 is too old")
	})
	t.Run("libtorch", func(t *testing.T) {
		assert.Contains(t, fail(t, setup, "LIBTORCH=/nonexistent"),
			"LIBTORCH=/nonexistent is no libtorch: lib/libtorch_cpu.so is not there")
	})
}

// fail runs a command that must fail, with one more setting in its environment,
// and returns what it said.
func fail(t *testing.T, command, setting string) string {
	t.Helper()
	c := exec.Command(command)
	c.Env = append(os.Environ(), setting)
	var stderr strings.Builder
	c.Stderr = &stderr
	var exit *exec.ExitError
	require.ErrorAs(t, c.Run(), &exit)
	assert.Equal(t, 1, exit.ExitCode())
	return stderr.String()
}

// scripts/env prints what the shell can evaluate.
func TestEnv(t *testing.T) {
	root := nsttest.Root(t)
	out, err := exec.Command("bash", "-c", `eval "$("$0")" && printf '%s\n' "$CGO_LDFLAGS"`,
		filepath.Join(root, "scripts", "env")).Output()
	require.NoError(t, err)
	assert.Contains(t, string(out), "-Wl,-rpath,"+filepath.Join(root, "build", "lib"))
}

// Set-up for the CPU alone brings the headers of CUDA's runtime and of no other library of
// CUDA's. Where all of them lie side by side, the compiler does not notice one too many.
func TestCUDAPartNeedsTheRuntimesHeadersAlone(t *testing.T) {
	list := filepath.Join(nsttest.Root(t), "build", "native", "CMakeFiles", "nstcuda.dir", "Unity",
		"unity_0_cxx.cxx.o.d")
	if _, err := os.Stat(list); os.IsNotExist(err) {
		// A libtorch without CUDA's headers: its own build shows that none is needed.
		assert.NoFileExists(t, filepath.Join(nsttest.Root(t), "build", "lib", "libnstcuda.so"))
		return
	}
	text, err := os.ReadFile(list)
	require.NoError(t, err)
	others := regexp.MustCompile(`/(cusparse|cublas|cusolver|cudnn|cufft|curand|cudss|cupti|nvrtc|nccl)[^/]*\.h`)
	assert.Empty(t, others.FindAllString(string(text), -1), "headers that the CPU's wheels do not bring")
}

// toolbox is a folder of some of this machine's tools, for PATH: it has no nvidia-smi.
func toolbox(t *testing.T, tools ...string) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range tools {
		found, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(found, filepath.Join(folder, name)))
	}
	return folder
}

// writeFiles makes files that are empty but for what some have in them, and their folders.
func writeFiles(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
	}
}

// Which libtorch set-up takes, by the card that nvidia-smi shows and by Python's torch. It
// fetches CUDA's libraries only where they would serve, and keeps no torch for the CPU where
// there is a card that they serve.
func TestSetupGoesByTheCard(t *testing.T) {
	const (
		forCPU, forCUDA, ofOld = "CPU", "CUDA", "old"            // the torch that Python has
		pythons, wheel, none   = "site/torch", "wheel/torch", "" // the libtorch that is taken
		fetching               = "downloading libtorch's CUDA libraries (2.1 GB)"
		tooOld                 = "NVIDIA GeForce GTX 1080 has compute capability 6.1, and libtorch 2.15.0 has code " +
			"from 7.5 on: a Python torch for that card will do (NST_PYTHON); the CPU is used\n"
		wantsDriver = "and libtorch 2.15.0 wants 580 or later: a newer driver will do, or a Python torch made for it " +
			"(NST_PYTHON); the CPU is used\n"
	)
	for name, c := range map[string]struct {
		smi, asked, torch string // nvidia-smi's answer, "" where there is none; $NST_CUDA
		want, says        string
	}{
		"no card":             {"", "", forCPU, pythons, ""},
		"no card, no torch":   {"", "", ofOld, wheel, ""},
		"no answer":           {nsttest.NoAnswer, "", forCPU, pythons, ""},
		"no answer, no torch": {nsttest.NoAnswer, "", ofOld, wheel, ""},
		"half an answer":      {nsttest.LostCard, "", ofOld, wheel, ""},
		"no devices":          {nsttest.NoDevices, "", ofOld, wheel, ""},
		"a name with a comma": {nsttest.NamedCard, "", forCPU, none,
			fetching + ": there is a GPU, NVIDIA Card, Special\n"},
		"an old card and one of no capability": {nsttest.StrangeCards, "", forCPU, pythons, tooOld},
		"CUDA is asked for":                    {"", "1", forCPU, none, fetching},
		"CUDA is asked for, and is":            {"", "1", forCUDA, pythons, ""},
		"a card": {nsttest.NewCard, "", forCPU, none,
			fetching + ": there is a GPU, NVIDIA H100"},
		"a card, torch for CUDA": {nsttest.NewCard, "", forCUDA, pythons, ""},
		"a card, no torch":       {nsttest.NewCard, "", ofOld, none, fetching},
		"an old card and a new one": {nsttest.OldAndNewCard, "", ofOld, none,
			fetching + ": there is a GPU, NVIDIA H100"},
		"an old card":            {nsttest.OldCard, "", forCPU, pythons, tooOld},
		"an old card, no torch":  {nsttest.OldCard, "", ofOld, wheel, tooOld},
		"an old card, its torch": {nsttest.OldCard, "", forCUDA, pythons, ""},
		"an old driver": {nsttest.OldDriver, "", forCPU, pythons,
			"the driver of NVIDIA H100 80GB HBM3 is 535.183.01, " + wantsDriver},
		"a driver of long ago": {nsttest.VeryOldDriver, "", ofOld, wheel,
			"the driver of Tesla K80 is 470.57, " + wantsDriver},
	} {
		t.Run(name, func(t *testing.T) {
			tools := toolbox(t, "bash", "dirname", "head", "mkdir", "mktemp", "rm", "sed", "sort", "timeout",
				"uname")
			if c.smi != "" {
				nsttest.NVIDIASMI(t, tools, c.smi)
			}
			folder := t.TempDir()
			writeFiles(t, filepath.Join(folder, "site", "torch"), map[string]string{"__init__.py": "",
				"include/ATen/ATen.h": "", "lib/libtorch_cpu.so": "", "version.py": "__version__ = '2.15.0'"})
			switch c.torch {
			case forCUDA:
				writeFiles(t, folder, map[string]string{"site/torch/lib/libtorch_cuda.so": ""})
			case ofOld:
				writeFiles(t, folder, map[string]string{"site/torch/version.py": "__version__ = '2.3.1'"})
			}
			// As if the wheel had been fetched for the CPU.
			writeFiles(t, folder, map[string]string{"wheel/torch/lib/libtorch_cpu.so": ""})
			require.NoError(t, os.Symlink("wheel", filepath.Join(folder, "libtorch-2.15.0")))
			setup := exec.Command("bash", "-c",
				`source "$1"; read_pins; gpu=$(find_gpu); find_libtorch; echo "$libtorch"`,
				"bash", filepath.Join(nsttest.Root(t), "scripts", "setup"))
			setup.Env = []string{"PATH=" + tools, "NST_CACHE=" + folder, "NST_CUDA=" + c.asked,
				"NST_PYTHON=" + python(t), "PYTHONPATH=" + filepath.Join(folder, "site"),
				"PIP_NO_INDEX=1"} // so that nothing can be fetched
			var stderr strings.Builder
			setup.Stderr = &stderr
			out, err := setup.Output()
			assert.Equal(t, c.want == none, err != nil, stderr.String())
			assert.Equal(t, c.want, strings.TrimPrefix(strings.TrimSpace(string(out)), folder+"/"))
			assert.Contains(t, stderr.String(), c.says)
			assert.Equal(t, c.says == "", stderr.String() == "", stderr.String())
		})
	}
}

// python is the Python behind python3, which may be a script that wants other tools.
func python(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// scripts/nst sets up again where what it was set up for has changed: sources, or a GPU's
// driver, which came, went or was replaced.
func TestNSTSetsUpAgain(t *testing.T) {
	driver, err := os.ReadFile("/proc/driver/nvidia/version")
	if err != nil {
		driver = nil // a machine without one
	}
	script, err := os.ReadFile(filepath.Join(nsttest.Root(t), "scripts", "nst"))
	require.NoError(t, err)
	const ran, setUp = "nst --version\n", "set up\nnst --version\n"
	for name, c := range map[string]struct{ changed, text, want string }{
		"as it was":      {"nst/engine_test.go", "", ran},
		"a later source": {"nst/engine.go", "", setUp},
		"another driver": {"build/.driver", "another", setUp},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			writeFiles(t, root, map[string]string{"scripts/nst": string(script),
				"scripts/setup": "#!/bin/sh\necho set up", "CMakeLists.txt": "", "go.mod": "", "go.sum": "",
				"torch/a.go": "", "cmd/a.go": "", "nst/a.go": "", "build/libtorch/lib/libtorch_cpu.so": "",
				"build/share/nst/vgg19.pt": "", "build/bin/nst": "#!/bin/sh\necho nst \"$@\"",
				"build/.driver": string(driver), "build/.setup": "", c.changed: c.text})
			// The clock of files may stand still between two.
			for i, name := range []string{"build/.setup", c.changed} {
				later := time.Now().Add(time.Duration(i+1) * time.Hour)
				require.NoError(t, os.Chtimes(filepath.Join(root, name), later, later))
			}
			out, err := exec.Command(filepath.Join(root, "scripts", "nst"), "--version").CombinedOutput()
			require.NoError(t, err, string(out))
			assert.Equal(t, c.want, string(out))
		})
	}
}
