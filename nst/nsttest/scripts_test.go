package nsttest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
