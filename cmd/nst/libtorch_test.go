package main

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/torch"
)

// writeLibtorch makes what looks like a libtorch of a version.
func writeLibtorch(t *testing.T, version string, files ...string) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{"lib/libtorch_cpu.so": "", "build-version": version + "+cu130\n"} {
		require.NoError(t, os.MkdirAll(filepath.Join(folder, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
	for _, name := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), nil, 0o644))
	}
	return folder
}

// A libtorch of another version is not loaded, and is told of; one that was named is an
// error then.
func TestLibtorchPlaces(t *testing.T) {
	other := writeLibtorch(t, "2.3.1", "lib/libtorch_cuda.so")
	same := writeLibtorch(t, torch.Version(), "lib/libtorch_cuda.so")

	t.Setenv("LIBTORCH", other)
	all := libtorchPlaces(true)
	require.GreaterOrEqual(t, len(all), 3)
	assert.Equal(t, "$LIBTORCH", all[0].Where)
	assert.Equal(t, "it is 2.3.1, and this program was compiled for "+torch.Version(), all[0].Wrong)
	assert.True(t, all[0].CUDA)
	assert.False(t, all[0].Used)
	assert.Equal(t, "Python's", all[len(all)-1].Where)

	t.Setenv("LIBTORCH", same)
	all = libtorchPlaces(true)
	assert.True(t, all[0].Used, "%v", all)
	for _, p := range all[1:] {
		assert.False(t, p.Used, "%v", all)
	}
	assert.Contains(t, all[0].String(), "with CUDA (used)")

	t.Setenv("LIBTORCH", other)
	t.Setenv("NST_LIBTORCH", "") // which it may set
	var said bytes.Buffer
	require.NoError(t, useLibtorch("", &said))
	assert.Contains(t, said.String(), "nst: $LIBTORCH is not used: it is 2.3.1, ")

	assert.ErrorContains(t, useLibtorch(other, io.Discard), "it is 2.3.1, and this program was compiled for")
	assert.ErrorContains(t, useLibtorch(t.TempDir(), io.Discard), "has no lib/libtorch_cpu.so")
}

// A torch in the folder that the user is in is none of Python's.
func TestLibtorchOfAFolder(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"torch/__init__.py", "torch/lib/libtorch_cpu.so", "torch/version.py"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), nil, 0o644))
	}
	t.Chdir(folder)
	assert.NotContains(t, pythonTorch(), folder)
	assert.Contains(t, look("Python's", filepath.Join(folder, "torch")).Wrong, "does not say its version")
}

// A version.py of a Python torch says the version too; NVIDIA's libraries have to be there
// where the torch wheel does not bring them.
func TestLibtorchOfPython(t *testing.T) {
	site := t.TempDir()
	for _, folder := range []string{"torch/lib", "torch-2.9.0.dist-info"} {
		require.NoError(t, os.MkdirAll(filepath.Join(site, folder), 0o755))
	}
	for name, text := range map[string]string{"torch/lib/libtorch_cpu.so": "", "torch/lib/libtorch_cuda.so": "",
		"torch/version.py": "__version__ = '2.9.0+cu128'\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(site, name), []byte(text), 0o644))
	}
	p := look("Python's", filepath.Join(site, "torch"))
	assert.Contains(t, p.Wrong, "it is 2.9.0, ")
	assert.False(t, p.CUDA)
	cublas := filepath.Join(site, "nvidia", "cu13", "lib")
	require.NoError(t, os.MkdirAll(cublas, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cublas, "libcublas.so.13"), nil, 0o644))
	assert.True(t, look("Python's", filepath.Join(site, "torch")).CUDA)
}

func TestWheels(t *testing.T) {
	cpu, cuda := wheels()
	assert.Len(t, cpu, 3)
	assert.Contains(t, cpu[0], "torch==")
	assert.Greater(t, len(cuda), 10)
	capability, driver := leastCard()
	assert.Equal(t, []float64{7.5, 580}, []float64{capability, driver})
	for _, w := range append(cpu, cuda...) {
		assert.Regexp(t, `^[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}$`, w)
	}
}

// A wheel's files are written where they belong, and none beyond the folder.
func TestUnpack(t *testing.T) {
	write := func(name string) string {
		path := filepath.Join(t.TempDir(), "a.whl")
		file, err := os.Create(path)
		require.NoError(t, err)
		defer file.Close()
		z := zip.NewWriter(file)
		w, err := z.Create(name)
		require.NoError(t, err)
		_, err = w.Write([]byte("text"))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		return path
	}
	folder, target := t.TempDir(), filepath.Join(t.TempDir(), "libtorch")
	require.NoError(t, unpack(context.Background(), write("nvidia/cu13/lib/x.so"), folder))
	require.NoError(t, merge(folder, target))
	data, err := os.ReadFile(filepath.Join(target, "nvidia", "cu13", "lib", "x.so"))
	require.NoError(t, err)
	assert.Equal(t, "text", string(data))
	assert.ErrorContains(t, unpack(context.Background(), write("../x.so"), folder), "leads out of it")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, unpack(ended, write("x.so"), folder), context.Canceled)
}

// nst install cuda fetches nothing for a card or a driver that it would not serve.
func TestInstallGoesByTheCard(t *testing.T) {
	version := torch.Version()
	for name, c := range map[string]struct{ smi, want string }{ // what it says; "" where it would fetch
		"a card": {nsttest.NewCard, ""},
		"an old card": {nsttest.OldCard,
			"NVIDIA GeForce GTX 1080 has compute capability 6.1, and libtorch " + version + " has code from 7.5 on: "},
		"an old card and a new one": {nsttest.OldAndNewCard, ""},
		"an old driver": {nsttest.OldDriver,
			"the driver of NVIDIA H100 80GB HBM3 is 535.183.01, and libtorch " + version + " wants 580 or later: "},
		"a driver of long ago": {nsttest.VeryOldDriver,
			"the driver of Tesla K80 is 470.57, and libtorch " + version + " wants 580 or later: "},
		"no answer":           {nsttest.NoAnswer, ""},
		"half an answer":      {nsttest.LostCard, ""},
		"no devices":          {nsttest.NoDevices, ""},
		"a name with a comma": {nsttest.NamedCard, ""},
		"an old card and one of no capability": {nsttest.StrangeCards,
			"NVIDIA GeForce GTX 1080 has compute capability 6.1, "},
		"no nvidia-smi": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tools := t.TempDir()
			if c.smi != "" {
				nsttest.NVIDIASMI(t, tools, c.smi)
			}
			t.Setenv("PATH", tools)
			t.Setenv("LIBTORCH", "")
			t.Setenv("NST_CACHE", t.TempDir())
			t.Setenv("NST_PYTHON", filepath.Join(tools, "python")) // there is none: nothing can be fetched
			status, _, stderr := runNST(t, "install", "cuda")
			assert.NotEqual(t, exitDone, status)
			if c.want == "" {
				assert.Contains(t, stderr, "nst: fetching libtorch ")
				return
			}
			assert.Contains(t, stderr, "nst: "+c.want)
			assert.Contains(t, stderr, ": nothing is fetched; ")
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		})
	}
}
