package nsttest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

const (
	module  = "github.com/seed9bb5c928/nst"
	gotorch = "github.com/wangkuiyi/gotorch"
)

// allowed is which packages of this module each may import: one way only, and
// what no package but one may reach.
var allowed = map[string][]string{
	"/torch":                  {},
	"/nst/internal/process":   {},
	"/nst/vgg19":              {"/torch", "/nst/internal/process"},
	"/nst/picture":            {},
	"/nst/picture/decoder":    {"/nst/picture", "/nst/internal/process"},
	"/nst/internal/tiling":    {"/torch", "/nst/vgg19"},
	"/nst/internal/objective": {"/torch", "/nst/vgg19", "/nst/internal/tiling"},
	"/nst/internal/descent":   {"/torch"},
	"/nst": {
		"/torch",
		"/nst/vgg19",
		"/nst/picture",
		"/nst/internal/tiling",
		"/nst/internal/objective",
		"/nst/internal/descent",
	},
	"/nst/report":             {"/torch", "/nst", "/nst/picture"},
	"/nst/video":              {"/torch", "/nst", "/nst/picture", "/nst/internal/process"},
	"/nst/jobs":               {"/torch", "/nst", "/nst/picture", "/nst/picture/decoder", "/nst/video"},
	"/nst/httpapi":            {"/nst", "/nst/jobs", "/nst/picture", "/nst/picture/decoder"},
	"/nst/httpapi/client":     {}, // and so neither libtorch nor cgo
	"/nst/jobs/jobstest":      {"/nst", "/nst/jobs", "/nst/nsttest"},
	"/nst/nsttest":            {"/torch", "/nst/vgg19"},
	"/nst/nsttest/features":   {"/nst", "/nst/vgg19", "/nst/picture"},
	"/nst/nsttest/cudatest":   {},
	"/cmd/nst/internal/bench": {"/torch", "/nst", "/nst/vgg19", "/nst/picture"},
	"/cmd/nst": {
		"/cmd/nst/internal/bench",
		"/torch",
		"/nst",
		"/nst/vgg19",
		"/nst/picture",
		"/nst/picture/decoder",
		"/nst/report",
		"/nst/video",
		"/nst/jobs",
		"/nst/httpapi",
		"/nst/httpapi/client",
	},
}

// outside is what package nst and what hangs off it know nothing of.
var outside = []string{"net/http", "flag", "github.com/spf13/", "github.com/nats-io/"}

// services are those that may.
var services = []string{"/nst/jobs", "/nst/httpapi", "/nst/httpapi/client", "/nst/nsttest"}

// one is a package as go list has it.
type one struct {
	ImportPath        string
	Imports, CgoFiles []string
}

// packages are this module's.
func packages(t *testing.T) (all []one) {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Imports,CgoFiles", "./...")
	list.Dir = nsttest.Root(t)
	out, err := list.Output()
	require.NoError(t, err)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p one
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all = append(all, p)
	}
}

// imported is which of this module's packages each imports.
func imported(t *testing.T) map[string][]string {
	out := map[string][]string{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		out[name] = nil
		for _, i := range p.Imports {
			if inner, ok := strings.CutPrefix(i, module); ok {
				out[name] = append(out[name], inner)
			}
		}
	}
	return out
}

func TestImportsGoOneWay(t *testing.T) {
	all := packages(t)
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, module)
		may, known := allowed[name]
		assert.True(t, known, "%s: which packages it may import is not said here", name)
		assert.Equal(t, name == "/torch", len(p.CgoFiles) > 0, `%s: import "C" is for torch alone`, name)
		assert.Equal(t, name == "/torch", slices.Contains(p.Imports, gotorch), "%s: gotorch is for torch alone", name)
		for _, i := range p.Imports {
			if inner, ok := strings.CutPrefix(i, module); ok {
				assert.Contains(t, may, inner, "%s imports %s", name, inner)
			}
			if strings.HasPrefix(name, "/nst") && !slices.Contains(services, name) {
				for _, o := range outside {
					assert.False(t, strings.HasPrefix(i, o), "%s imports %s", name, i)
				}
			}
		}
	}
	assert.Equal(t, len(allowed), len(all))
}
