package httpapi_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// What has happened to jobs is counted, and every metric that the dashboard and the alert
// rules name is there.
func TestMetrics(t *testing.T) {
	s := serve(t, true, jobs.Config{MaxBytes: 40 << 30}, httpapi.Config{})
	id := s.job(`{"size": 32, "iterations": 2}`)
	s.until(id, func(j jobs.Job) bool { return j.State == jobs.Done })
	var text string
	require.Eventually(t, func() bool { // a worker says every three seconds what it has done
		_, _, body := s.get("/metrics")
		text = string(body)
		return regexp.MustCompile(`nst_worker_busy_seconds_total\{.*\} [0-9.]*[1-9]`).MatchString(text)
	}, time.Minute, 100*time.Millisecond, "no worker has been busy: %s", text)
	for _, line := range []string{"nst_jobs_submitted_total 1", `nst_jobs_finished_total{state="done"} 1`,
		`nst_jobs_finished_total{state="failed"} 0`, "nst_job_wait_seconds_count 1", "nst_job_seconds_count 1",
		"nst_job_retries_total 0", "nst_worker_deaths_total 0", "nst_streams 0", "nst_workers 1",
		"nst_store_limit_bytes 4.294967296e+10"} {
		assert.Contains(t, text, "\n"+line+"\n")
	}
	assert.Regexp(t, `\nnst_store_bytes [1-9]`, text)

	var dashboard, alerts map[string]any
	board, err := os.ReadFile("operate/grafana.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(board, &dashboard))
	rules, err := os.ReadFile("operate/alerts.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(rules, &alerts))
	named := regexp.MustCompile(`\bnst_[a-z_]+`).FindAllString(string(board)+string(rules), -1)
	require.Greater(t, len(named), 20)
	for _, name := range named {
		if !strings.Contains(text, "\n"+name+" ") && !strings.Contains(text, "\n"+name+"{") {
			assert.Fail(t, "no such metric", name)
		}
	}
}
