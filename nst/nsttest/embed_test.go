package nsttest_test

import (
	"io"
	"net/http"
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

// Programs of another module embed the engine, the queue and the service.
func TestEmbedding(t *testing.T) {
	nsttest.Long(t)
	root, dir := nsttest.Root(t), t.TempDir()
	write := nsttest.Writer(t, dir)
	for _, name := range []string{"service", "queue", "picture"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("testdata", name))))
	}
	// The module needs what this one does.
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	write("go.mod", mod)
	write("go.sum", sum)
	run := func(args ...string) string {
		c := exec.Command("go", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	run("mod", "edit", "-module", "example.com/another", "-droptool", "honnef.co/go/tools/cmd/staticcheck",
		"-droptool", "github.com/mgechev/revive",
		"-require", module+"@v0.0.0", "-replace", module+"="+root)
	run("build", "-o", dir+"/bin/", "./...")
	made := func(program string, args ...string) string {
		args = append([]string{nsttest.Model(t), nsttest.Content(t), nsttest.Style(t)}, args...)
		out, err := exec.Command(filepath.Join(dir, program), args...).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	assert.Equal(t, "done true\n", made("bin/queue", t.TempDir()))

	// Installed by CMake, the libraries need no scripts/env: what pkg-config says will do. (With
	// other flags all is compiled anew that stands on cgo: of the queue that would be much.)
	prefix := t.TempDir()
	build := filepath.Join(root, "build", "native")
	out, err := exec.Command("cmake", "--install", build, "--prefix", prefix).CombinedOutput()
	require.NoError(t, err, string(out))
	found, err := filepath.Glob(filepath.Join(prefix, "*", "pkgconfig", "nsttorch.pc"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	pc, err := os.ReadFile(found[0])
	require.NoError(t, err)
	libs := regexp.MustCompile(`(?m)^Libs: (.*)$`).FindStringSubmatch(string(pc))
	require.Len(t, libs, 2)
	t.Setenv("CGO_LDFLAGS", strings.ReplaceAll(libs[1], "${libdir}", filepath.Dir(filepath.Dir(found[0]))))
	run("build", "-o", dir+"/installed/", "./picture")
	for _, built := range []string{"bin", "installed"} {
		assert.Equal(t, "64 48\n", made(built+"/picture"))
	}

	address := nsttest.Address(t)
	service := exec.Command(dir+"/bin/service", nsttest.Model(t), t.TempDir(), address)
	service.Stderr = os.Stderr
	require.NoError(t, service.Start())
	get := func(path string) (int, string) {
		answer, err := http.Get("http://" + address + path)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(body)
	}
	require.Eventually(t, func() bool { status, _ := get("/readyz"); return status == 200 }, 30*time.Second,
		100*time.Millisecond)
	_, text := get("/mine")
	assert.Equal(t, "my own call\n", text)
	status, _ := get("/v1/jobs")
	assert.Equal(t, 200, status)
	require.NoError(t, service.Process.Signal(os.Interrupt))
	assert.NoError(t, service.Wait())
}
