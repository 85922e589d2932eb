package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// buildWithDriver builds the program so that it finds the file of an NVIDIA driver.
func buildWithDriver(t *testing.T) (program string) {
	file, program := filepath.Join(t.TempDir(), "nvidiactl"), filepath.Join(t.TempDir(), "nst")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	there := "-X=github.com/seed9bb5c928/nst/torch.driverFile=" + file
	out, err := exec.Command("go", "build", "-ldflags="+there, "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

// pretendDriver is a folder of a driver's libraries, for LD_LIBRARY_PATH. NVML may be a file
// that is none, whatever this machine has.
func pretendDriver(t *testing.T, withNVML bool) (folder string) {
	folder = t.TempDir()
	nvml := filepath.Join(folder, "libnvidia-ml.so.1")
	nsttest.Compile(t, "testdata/driver.c", filepath.Join(folder, "libcuda.so.1"))
	if withNVML {
		nsttest.Compile(t, "internal/bench/testdata/nvml.c", nvml)
	} else {
		require.NoError(t, os.WriteFile(nvml, nil, 0o600))
	}
	return folder
}

// A driver that is too old, one that shows no GPU and none at all are told apart, with the
// card and the driver as NVML knows them: by doctor, by --device cuda, which fails, and by
// auto, which takes the CPU. It is CUDA's own libraries that ask the pretend driver.
func TestCUDADrivers(t *testing.T) {
	if os.Getenv("NST_CUDA") == "" {
		return // scripts/test --cuda has fetched CUDA's libraries
	}
	program, nvml, noNVML := buildWithDriver(t), pretendDriver(t, true), pretendDriver(t, false)
	for name, c := range map[string]struct{ libraries, cuda, driver, want string }{
		"too old": {nvml, "12020", "535.183.01", "the NVIDIA driver 535.183.01 (Pretend Card, compute capability " +
			"8.6) is too old: it is for CUDA 12.2, and this libtorch is CUDA "},
		"too old, without NVML": {noNVML, "12020", "", "the NVIDIA driver is too old: it is for CUDA 12.2, and "},
		"no GPU": {nvml, "13020", "580.65.06", "the NVIDIA driver 580.65.06 (Pretend Card, compute capability 8.6) " +
			"shows no GPU: no CUDA-capable device is detected; nvidia-smi and CUDA_VISIBLE_DEVICES may say why"},
		"no driver": {nvml, "0", "", "there is no NVIDIA driver; where there is a GPU, install its driver"},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(args ...string) (status int, stdout, stderr string) {
				nst := exec.Command(program, args...)
				var errs strings.Builder
				nst.Stderr = &errs
				nst.Env = append(os.Environ(), "LD_LIBRARY_PATH="+c.libraries, "PRETEND_CUDA="+c.cuda,
					"PRETEND_DRIVER="+c.driver, "NST_DEVICE_LIBRARY=", "NST_MODEL="+smallNetwork(t),
					"LIBTORCH="+filepath.Join(nsttest.Root(t), "build", "libtorch"))
				out, _ := nst.Output()
				return nst.ProcessState.ExitCode(), string(out), errs.String()
			}
			_, stdout, _ := run("doctor", "--json")
			var d diagnosis
			require.NoError(t, json.Unmarshal([]byte(stdout), &d))
			assert.Contains(t, d.CUDA, "no such device: cuda: "+c.want)

			stylize := []string{"stylize", nsttest.Content(t), nsttest.Style(t), "--size", "32", "--iterations", "1",
				"--quiet", "-o", filepath.Join(t.TempDir(), "out.png"), "--device"}
			status, _, stderr := run(append(stylize, "cuda")...)
			assert.Equal(t, exitUsage, status)
			assert.Equal(t, "nst: --device: "+d.CUDA+"\n", stderr)
			status, _, stderr = run(append(stylize, "auto")...)
			assert.Equal(t, exitDone, status)
			assert.Equal(t, "nst: the CPU is used: "+d.CUDA+"\n", stderr)
		})
	}
}
